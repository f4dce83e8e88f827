# SPDX-License-Identifier: Apache-2.0
"""Which samples a step takes: a pure function of (seed, step) for any number of processes, sorted by length on request.

Shapes: N samples, B samples of this process.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import DataError
from lapa_core.train.pairs import rank_share
from lapa_core.train.sampling import Part, batch_indices


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The samples of every step: each epoch a fresh permutation, its last partial batch dropped.

    A sequence model pads every batch to its longest sequence. With `window` above 1 so many batches at a time are
    sorted by length and shuffled as batches, so that long instructions meet long ones.
    """

    count: int
    """N, samples in the set; a set smaller than one batch is one batch of all that the processes can share."""
    batch_size: int
    """Samples per step over all processes."""
    seed: int = 0
    """Seed of the order."""
    part: Part = field(default_factory=Part)
    """Which part of each batch is this process's."""
    lengths_N: NDArray[np.int64] | None = None
    """Length of every sample, in any unit; needed for a window."""
    window: int = 1
    """Batches that are sorted together; 1 sorts none."""

    def __post_init__(self) -> None:
        rank_share(self.batch_size, self.part.world)
        if self.count < self.part.world:
            raise DataError(f"{self.count} samples are too few for {self.part.world} processes")

    def __call__(self, step: int) -> NDArray[np.int64]:
        """Return the numbers (B,) of this process's samples."""
        world = self.part.world
        size = min(self.batch_size, self.count // world * world)
        joint = (
            batch_indices(self.count, size, self.seed, step)
            if self.lengths_N is None or self.window <= 1
            else self._sorted(self.lengths_N, size, step)
        )
        share = size // world
        return joint[self.part.rank * share : (self.part.rank + 1) * share]

    def _sorted(self, lengths_N: NDArray[np.int64], size: int, step: int) -> NDArray[np.int64]:
        """Return a joint batch out of the window that the step lies in; a window ends with its epoch."""
        per_epoch = self.count // size
        epoch, position = divmod(step, per_epoch)
        first = position // self.window * self.window
        batches = range(first, min(first + self.window, per_epoch))
        inside = np.concatenate(
            [
                batch_indices(self.count, size, self.seed, epoch * per_epoch + number)
                for number in batches
            ]
        )
        inside = inside[np.argsort(lengths_N[inside], kind="stable")]
        order = np.random.default_rng([self.seed, epoch, first, 1]).permutation(len(batches))
        start = int(order[position - first]) * size
        return inside[start : start + size]
