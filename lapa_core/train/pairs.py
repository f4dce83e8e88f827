# SPDX-License-Identifier: Apache-2.0
"""Batches of frame pairs, each a pure function of (seed, step, rank, world): what every training loop of pairs reads.

One step's global batch is drawn once and cut into `world` equal parts in order: rank r gets samples
r * B to (r + 1) * B. Two processes together therefore see exactly what one process with both parts would see.

Shapes: B pairs of this rank, S image side [px], A action dimensions, P pairs of the store, N frames of the store.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.pair_batch import PairBatch as PairBatch
from lapa_core.data.store import FrameStore, random_later
from lapa_core.errors import ContractError, DataError
from lapa_core.train.sampling import batch_indices

_EPISODE_APART_S = 1e6
"""Time laid between episodes so that one sorted array holds the times of all of them [s]."""


class PairBatches(Protocol):
    """A source of pairs."""

    def batch(self, step: int) -> PairBatch:
        """Return this rank's part of a step's pairs; steps are asked for in rising order."""
        ...

    def close(self) -> None:
        """Release what the source holds: processes, shared memory."""
        ...


def rank_share(batch_size: int, world: int) -> int:
    """Return how many of a global batch's samples each rank takes.

    Raises:
        ContractError: the batch cannot be divided evenly.
    """
    share, rest = divmod(batch_size, world)
    if rest or not share:
        raise ContractError(
            f"batch_size is {batch_size}, which {world} processes cannot share evenly; give a multiple of {world}"
        )
    return share


def actions_between(
    actions_NA: NDArray[np.float32], pairs_P2: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return what was done between the frames of each pair (P, A).

    Deltas add up from the first frame to the one before the later; the last dimension, the gripper's, is a state
    and keeps its last value.
    """
    first, later = pairs_P2.T
    sums_NA = np.concatenate(
        [np.zeros((1, actions_NA.shape[1])), np.cumsum(actions_NA, axis=0, dtype=np.float64)]
    )
    total_PA = (sums_NA[later] - sums_NA[first]).astype(np.float32)
    total_PA[:, -1] = actions_NA[later - 1, -1]
    return total_PA


class StorePairs:
    """Pairs of a `FrameStore`: every epoch a fresh permutation of all of them."""

    def __init__(
        self,
        store: FrameStore,
        *,
        batch_size: int,
        gap_s: float,
        gap_range_s: tuple[float, float] | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        """Find the pairs.

        Args:
            store: frames, and actions if `PairBatch.actions_BA` shall be filled.
            batch_size: pairs per step over all ranks; fewer when the store has fewer.
            gap_s: time between the frames of a pair [s].
            gap_range_s: draw each pair's gap uniformly between these two [s] instead, the upper one cut where the
                episode ends; the later frame is the one nearest to it.
            seed: seed of order and gaps.
            rank: which part of each batch is this process's.
            world: number of parts.

        Raises:
            DataError: no pair of frames lies so far apart, or fewer pairs than ranks.
            ContractError: the batch cannot be shared evenly.
        """
        rank_share(batch_size, world)
        self.store, self.seed, self.rank = store, seed, rank
        self.gap_range_s = gap_range_s
        self.pairs_P2 = store.valid_pairs(gap_s if gap_range_s is None else gap_range_s[0])
        self.batch_size = min(batch_size, len(self.pairs_P2) // world * world)
        if not self.batch_size:
            raise DataError(f"{len(self.pairs_P2)} pairs are too few for {world} processes")
        self.share = self.batch_size // world
        self._time_N = store.timestamps_s + _EPISODE_APART_S * store.episode_ids
        self._last_N = store.episode_offsets[1:][store.episode_ids] - 1

    def pairs(self, step: int) -> NDArray[np.int64]:
        """Return the frame numbers (B, 2) of this rank's pairs."""
        chosen = batch_indices(len(self.pairs_P2), self.batch_size, self.seed, step)
        pairs_G2 = self.pairs_P2[chosen]
        if self.gap_range_s is not None:
            pairs_G2[:, 1] = self._random_later(pairs_G2, step)
        return pairs_G2[self.rank * self.share : (self.rank + 1) * self.share]

    def batch(self, step: int) -> PairBatch:
        """Return this rank's part of a step's pairs."""
        pairs_B2 = self.pairs(step)
        frames, actions = self.store.frames, self.store.actions
        return PairBatch(
            frames[pairs_B2[:, 0]],
            frames[pairs_B2[:, 1]],
            None if actions is None else actions_between(actions, pairs_B2),
        )

    def close(self) -> None:
        """Nothing to release."""

    def _random_later(self, pairs_G2: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """Return the frame nearest to a random gap after each first frame, within its episode."""
        assert self.gap_range_s is not None
        first = pairs_G2[:, 0]
        share_G = np.random.default_rng([self.seed, step, 1]).random(len(first))
        return random_later(self._time_N, pairs_G2, self._last_N[first], self.gap_range_s, share_G)
