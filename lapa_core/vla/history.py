# SPDX-License-Identifier: Apache-2.0
"""The codes of earlier frames, which a model may read in its prompt: those of a data set, and a policy's own.

A frame t is shown the codes of the pairs (t - gap, t), (t - 2 gap, t - gap), ...: what has moved until now, nothing of
what comes. In training these are the labels; a policy remembers the codes that it named itself. Evidence
(facts/peers.md 1.4): UniVLA's LIBERO-Long went from 88.1 to 92.0 by the one before. Imports numpy only.

Shapes: N frames, P pairs, M earlier codes, K latent tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import CheckpointError

HISTORY = "history"
"""Name of the earlier codes among a model's extra inputs, and of their number in a checkpoint."""
NO_CODE = -1
"""Stands for the codes of a time before the episode."""


def earlier_codes(
    pairs_P2: NDArray[np.int64], codes_PK: NDArray[np.int64], count: int, most: int
) -> NDArray[np.int64]:
    """Return the codes (N, M, K) of the pairs that end at each frame, at their first frame, and so on.

    Args:
        pairs_P2: (frame, later frame) inside one episode.
        codes_PK: of each pair.
        count: N.
        most: M.
    """
    first_P, later_P = pairs_P2.T
    codes_NK = np.full((count, codes_PK.shape[1]), NO_CODE, dtype=np.int64)
    before_N = np.full(count, NO_CODE, dtype=np.int64)
    codes_NK[later_P], before_N[later_P] = codes_PK, first_P
    earlier_NMK = np.full((count, most, codes_PK.shape[1]), NO_CODE, dtype=np.int64)
    at_N: NDArray[np.int64] = np.arange(count)
    for m in range(most):
        there_N = at_N != NO_CODE
        earlier_NMK[there_N, m] = codes_NK[at_N[there_N]]
        at_N = np.where(there_N, before_N[at_N], NO_CODE)
    return earlier_NMK


class CodeMemory:
    """The codes that a policy named in this episode, one decision per control period."""

    def __init__(self, most: int, tokens: int, periods: int):
        """Keep what `codes` needs.

        Args:
            most: M.
            tokens: K.
            periods: the time between the frames of a pair [control periods].
        """
        self._shape, self._periods = (most, tokens), periods
        self._named: deque[tuple[int, ...]] = deque(maxlen=most * periods)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> CodeMemory | None:
        """Return an empty memory for the policy of a checkpoint's config; none where it reads no earlier codes.

        Raises:
            CheckpointError: the config does not say what codes they are.
        """
        most = config.get(HISTORY, 0)
        if not most:
            return None
        if missing := {"latent", "gap_s", "control_rate_hz"} - {k for k, v in config.items() if v}:
            raise CheckpointError(
                f"the policy reads the codes of {most} earlier frames, but its config.json lacks {sorted(missing)}; "
                "finetune again"
            )
        return cls(
            most, config["latent"][0], periods_of(config["gap_s"], config["control_rate_hz"])
        )

    def codes(self) -> NDArray[np.int64]:
        """Return the codes (M, K) that the next decision reads, the latest first."""
        codes_MK = np.full(self._shape, NO_CODE, dtype=np.int64)
        for m, back in enumerate(range(self._periods, len(self._named) + 1, self._periods)):
            codes_MK[m] = self._named[-back]
        return codes_MK

    def remember(self, codes: tuple[int, ...]) -> None:
        """Take the codes of a decision."""
        self._named.append(codes)

    def forget(self) -> None:
        """Begin an episode."""
        self._named.clear()


def periods_of(gap_s: float, rate_hz: float) -> int:
    """Return the number of periods nearest to a gap, at least one."""
    return max(1, round(gap_s * rate_hz))
