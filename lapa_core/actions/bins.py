# SPDX-License-Identifier: Apache-2.0
"""Per-dimension quantile bins: the discrete actions that the paper's head predicts. Imports numpy only.

Source: LAPA section 3.3 and the release's `finetune_preprocess.py`: quantiles of the finetuning set
itself, duplicates dropped, so dimensions have *different* numbers of bins ("ragged"). Two deviations:

* an index outside a dimension's own bins is an error here; the release decodes it as 1.0 (1 m, 1 rad);
* the gripper is binned like the rest when it takes more than two values; a binary gripper gets one
  bin per value, so that its centres are exactly those values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.errors import ActionError

MAX_BINS = 256
GRIPPER = len(ACTION_NAMES) - 1
"""Which dimension is the gripper's opening."""
_DISTINCT_VALUES_KEPT = 3
"""A dimension with at most this many distinct values gets one bin per value (constant axes, gripper)."""
_NEAR_AN_END, _MOSTLY = 0.05, 0.9
"""A gripper is open-or-closed where this share of its openings lies this close to 0 or 1; it then gets these two bins
(as in the release, facts/lapa.md 2.6). Quantiles would decode "open" as the middle of a wide bin: half open."""


class ActionBins:
    """Ragged per-dimension bins with exact masks.

    Attributes:
        edges: one increasing float64 array per dimension; n + 1 edges make n bins.
        centres: the decoded value of every bin, per dimension.
    """

    def __init__(self, edges: Sequence[ArrayLike], centres: Sequence[ArrayLike] | None = None):
        """Check and take edges; centres default to the middle of each bin.

        Raises:
            ActionError: not seven dimensions, edges not finite or not increasing, too many bins.
        """
        self.edges = tuple(np.asarray(e, dtype=np.float64) for e in edges)
        if len(self.edges) != len(ACTION_NAMES):
            raise ActionError(
                f"bins have {len(self.edges)} dimensions; allowed is {len(ACTION_NAMES)}: {ACTION_NAMES}"
            )
        for name, edge in zip(ACTION_NAMES, self.edges, strict=True):
            if edge.ndim != 1 or not 2 <= len(edge) <= MAX_BINS + 1:
                raise ActionError(
                    f"{name} has edges of shape {edge.shape}; allowed are 2 to {MAX_BINS + 1} edges"
                )
            if not np.isfinite(edge).all() or not (np.diff(edge) > 0).all():
                raise ActionError(
                    f"the edges of {name} must be finite and increasing; given {edge.tolist()[:6]} ..."
                )
        if centres is None:
            centres = [(e[:-1] + e[1:]) / 2 for e in self.edges]
        self.centres = tuple(np.asarray(c, dtype=np.float64) for c in centres)
        for name, edge, centre in zip(ACTION_NAMES, self.edges, self.centres, strict=True):
            inside = (
                len(centre) == len(edge) - 1
                and (edge[:-1] <= centre).all()
                and (centre <= edge[1:]).all()
            )
            if not inside:
                raise ActionError(f"the bin centres of {name} do not lie inside their edges")

    @classmethod
    def fit(cls, actions_N7: ArrayLike, max_bins: int = MAX_BINS) -> ActionBins:
        """Fit quantile bins to a finetuning set of shape (N, 7).

        Raises:
            ActionError: wrong shape, no rows, values that are not finite, `max_bins` outside 2 to 256.
        """
        actions = np.asarray(actions_N7, dtype=np.float64)
        if actions.ndim != 2 or actions.shape[1] != len(ACTION_NAMES) or len(actions) == 0:
            raise ActionError(f"actions have shape {actions.shape}; allowed is (N, 7) with N >= 1")
        if not 2 <= max_bins <= MAX_BINS:
            raise ActionError(f"max_bins is {max_bins}; allowed is 2 to {MAX_BINS}")
        bad = np.logical_not(np.isfinite(actions).all(axis=1))
        if bad.any():
            raise ActionError(
                f"{bad.sum()} of {len(bad)} actions are not finite, first at row {int(bad.argmax())}"
            )
        fitted = [_fit_dimension(column, max_bins) for column in actions.T]
        if len(fitted[GRIPPER][1]) > 1 and _is_binary(actions[:, GRIPPER]):
            fitted[GRIPPER] = (np.array([-0.5, 0.5, 1.5]), np.array([0.0, 1.0]))
        edges, centres = zip(*fitted, strict=True)
        return cls(edges, centres)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(7,) number of bins of each dimension."""
        return np.array([len(c) for c in self.centres])

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(7, max(counts)) true where a bin exists: what the action head's logits are masked with."""
        return np.arange(self.counts.max())[None, :] < self.counts[:, None]

    def encode(self, actions: ArrayLike) -> NDArray[np.int64]:
        """Return the bin indices of actions (..., 7); values beyond the outer edges go to the outer bins."""
        values = np.asarray(actions, dtype=np.float64)
        if values.shape[-1:] != (len(ACTION_NAMES),):
            raise ActionError(f"actions have shape {values.shape}; allowed is (..., 7)")
        if not np.isfinite(values).all():
            raise ActionError("actions to encode must be finite")
        columns = [
            np.searchsorted(e[1:-1], values[..., i], side="right") for i, e in enumerate(self.edges)
        ]
        return np.stack(columns, axis=-1).astype(np.int64)

    def decode(self, bins_7: ArrayLike) -> NDArray[np.float64]:
        """Return the (7,) bin centres.

        Raises:
            ActionError: an index outside its own dimension's bins.
        """
        bins = np.asarray(bins_7)
        if bins.shape != (len(ACTION_NAMES),) or not np.issubdtype(bins.dtype, np.integer):
            raise ActionError(
                f"bins are {bins.dtype} of shape {bins.shape}; allowed are seven integers"
            )
        for name, index, count in zip(ACTION_NAMES, bins, self.counts, strict=True):
            if not 0 <= index < count:
                raise ActionError(
                    f"bin {index} of {name} does not exist; it has bins 0 to {count - 1}"
                )
        return np.array([centre[i] for centre, i in zip(self.centres, bins, strict=True)])

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form; `from_dict` is its inverse."""
        return {
            "edges": [e.tolist() for e in self.edges],
            "centres": [c.tolist() for c in self.centres],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ActionBins:
        """Rebuild bins from `to_dict`'s form, checked as in the constructor."""
        if not isinstance(data, dict) or set(data) != {"edges", "centres"}:
            raise ActionError("bins must be a mapping with exactly the keys edges and centres")
        return cls(data["edges"], data["centres"])


def _is_binary(opening_N: NDArray[np.float64]) -> bool:
    distance_N = np.minimum(np.abs(opening_N), np.abs(opening_N - 1.0))
    return bool((distance_N <= _NEAR_AN_END).mean() >= _MOSTLY)


def _fit_dimension(
    values_N: NDArray[np.float64], max_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    distinct = np.unique(values_N)
    if len(distinct) <= min(_DISTINCT_VALUES_KEPT, max_bins):
        middles = (distinct[:-1] + distinct[1:]) / 2
        return np.concatenate([[distinct[0] - 0.5], middles, [distinct[-1] + 0.5]]), distinct
    edges = np.unique(np.quantile(values_N, np.linspace(0, 1, max_bins + 1)))
    return edges, (edges[:-1] + edges[1:]) / 2
