# SPDX-License-Identifier: Apache-2.0
"""Randomness as a pure function of (seed, step), so that a resumed run repeats the straight one bit for bit.

Nothing here keeps state: the batch of step 1000 is the same whether steps 0 to 999 ran in this process, in
another one, or not at all. A checkpoint therefore needs no generator state, only the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which part of a joint batch is this process's: equal parts, cut in order."""

    rank: int = 0
    """Which part."""
    world: int = 1
    """Number of parts."""

    def draw(self, draw_joint: Callable[[int], Tensor], share: int) -> Tensor:
        """Return this part of random numbers that are drawn for the joint batch, whatever the number of parts."""
        return draw_joint(share * self.world)[self.rank * share : (self.rank + 1) * share]


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's global generator for one step (dropout, augmentation, quantiser noise).

    Args:
        seed: of the run.
        step: counted from 0.
        rank: for what every process draws for itself (dropout); 0 also for what is drawn for the joint batch.
    """
    entropy = [seed, step, rank] if rank else [seed, step]
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order = np.random.default_rng([seed, epoch]).permutation(count)
    order.flags.writeable = False
    return order


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Return the sample indices of one step: each epoch is a fresh permutation, its last partial batch dropped.

    A set smaller than one batch is one batch of all samples.
    """
    size = min(batch_size, count)
    per_epoch = count // size
    epoch, position = divmod(step, per_epoch)
    return _epoch_order(count, seed, epoch)[position * size : (position + 1) * size].copy()
