# SPDX-License-Identifier: Apache-2.0
"""What the codes say about the true actions: linear probes per dimension and mutual information. Imports numpy.

Shapes: P pairs, A action dimensions, K latent tokens, N codes per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.laq.probe import one_hot, ridge_r2
from lapa_core.laq.report.measure import Measured

CONSTANT = 1e-4
"""Standard deviation below which a dimension counts as constant [m, rad, share of the gripper's opening]."""
MIN_EPISODES = 4
"""Episodes that a probe needs: half to fit, half to score."""
MOST_GROUPS = 32
"""Groups of actions at most, for the mutual information."""
SOURCES = (
    "codes",
    "vectors",
    "pixel_difference",
    "first_frame",
    "shuffled_codes",
    "stranger_codes",
)
"""What a probe reads: one-hot codes; vectors before quantisation; the difference of the frames (ceiling of a linear map
of pixels); the first frame only (floor: what the scene gives away without motion); codes of other pairs (floor); codes
of the first frame with another pair's later frame (control: no more than the first frame gives away)."""


@dataclass(frozen=True, kw_only=True)
class ActionFigures:
    """R2 on held-out episodes, and the mutual information of codes and motions."""

    dimensions: tuple[str, ...]
    """Action dimensions that vary; the others cannot be probed."""
    constant: tuple[str, ...]
    """Action dimensions that do not."""
    translation: tuple[str, ...]
    """Dimensions behind `r2` and the mutual information: the translation [m], or all where none of it varies."""
    r2: dict[str, float]
    """R2 of the translation, weighted by variance, for each of `SOURCES`."""
    r2_per_dimension: dict[str, tuple[float, ...]]
    """The same for each of `dimensions`."""
    groups: int
    """Groups (k-means) of the translation: as many as code tuples in use, at least 2, at most 32."""
    nmi: float
    """Mutual information of code tuple and group, 2 I / (H + H): 0 independent, 1 the same thing."""
    nmi_per_position: tuple[float, ...]
    """The same for each position of the tuple alone."""
    nmi_null: tuple[float, ...]
    """The same after re-pairing codes and motions at random, once per permutation. Few pairs and many tuples push it
    well above 0, so only what exceeds it counts."""

    @property
    def floor_margin(self) -> float:
        """R2 of the codes above that of the first frame, or above the mean (0) where the first frame is worse."""
        return self.r2["codes"] - max(0.0, self.r2["first_frame"])

    @property
    def nmi_excess(self) -> float:
        """Mutual information above the mean of its null."""
        return self.nmi - float(np.mean(self.nmi_null))


def varying(motion_P7: NDArray[np.float64], folds_P: NDArray[np.int64]) -> list[int]:
    """Return the dimensions that vary both where probes are fitted and where they are scored."""
    spread_27 = [motion_P7[folds_P % 2 == half].std(axis=0) for half in (0, 1)]
    return np.flatnonzero(np.min(spread_27, axis=0) > CONSTANT).tolist()


def action_figures(
    measured: Measured,
    motion_P7: NDArray[np.float64],
    folds_P: NDArray[np.int64],
    *,
    codes: int,
    permutations: int,
    seed: int,
) -> ActionFigures:
    """Probe the codes for the true motion.

    Args:
        measured: what the model said.
        motion_P7: true motion of each pair; at least one dimension varies.
        folds_P: random number of each pair's episode; even ones fit, odd ones score.
        codes: N.
        permutations: size of the null.
        seed: seed of the k-means and the permutations.
    """
    rng = np.random.default_rng(seed)
    live = varying(motion_P7, folds_P)
    moved = [a for a in live if a < 3] or live
    hot = one_hot(measured.codes_PK, codes)
    known = dict(
        zip(
            SOURCES,
            (
                hot,
                measured.vectors_PF,
                measured.difference_small_PF,
                measured.first_small_PF,
                hot[rng.permutation(len(hot))],
                one_hot(measured.stranger_codes_PK, codes),
            ),
            strict=True,
        )
    )
    columns = [live.index(a) for a in moved]
    fits = {name: ridge_r2(x, motion_P7[:, live], folds_P, columns) for name, x in known.items()}
    tuples_P = np.unique(measured.codes_PK, axis=0, return_inverse=True)[1].ravel()
    groups = int(np.clip(tuples_P.max() + 1, 2, MOST_GROUPS))
    group_P = group_motions(motion_P7[:, moved], groups, seed)
    return ActionFigures(
        dimensions=tuple(ACTION_NAMES[a] for a in live),
        constant=tuple(name for a, name in enumerate(ACTION_NAMES) if a not in live),
        translation=tuple(ACTION_NAMES[a] for a in moved),
        r2={name: found.joint for name, found in fits.items()},
        r2_per_dimension={name: tuple(found.each_A.tolist()) for name, found in fits.items()},
        groups=len(np.unique(group_P)),
        nmi=_nmi(tuples_P, group_P),
        nmi_per_position=tuple(_nmi(token, group_P) for token in measured.codes_PK.T),
        nmi_null=tuple(_nmi(rng.permutation(tuples_P), group_P) for _ in range(permutations)),
    )


def group_motions(motion_PA: NDArray[np.float64], groups: int, seed: int) -> NDArray[np.int64]:
    """Return the k-means cluster of each motion; `groups` is reduced where fewer different motions exist."""
    groups = min(groups, len(np.unique(motion_PA, axis=0)))
    return KMeans(groups, n_init=4, random_state=seed).fit_predict(motion_PA).astype(np.int64)


def _nmi(one_P: NDArray[np.int64], other_P: NDArray[np.int64]) -> float:
    return float(normalized_mutual_info_score(one_P, other_P))
