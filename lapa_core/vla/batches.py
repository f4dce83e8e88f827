# SPDX-License-Identifier: Apache-2.0
"""What a training step learns from, wherever it comes from.

Shapes: M examples, B examples of this process's part of a batch, C H W image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.train.augment import load_images
from lapa_core.train.parallel import Parallel
from lapa_core.train.rows import Rows
from lapa_core.train.sampling import Part
from lapa_core.vla.config import LoopConfig
from lapa_core.vla.extra import extra_tensors

REPORT_FRAMES = 2048
"""Most frames that the figures in a checkpoint are taken over."""


class Batch(NamedTuple):
    """Labelled frames on the device that trains."""

    image_BCHW: Tensor
    """Frames in [0, 1]."""
    words: list[str]
    """Their instructions."""
    extra: dict[str, Tensor] | None
    """What there is beside them (`lapa_core.vla.extra`)."""
    labels: dict[str, Tensor]
    """What the objective reads, batch first."""


class Batches(Protocol):
    """A source of batches, each a pure function of seed and step."""

    def batch(self, step: int) -> Batch:
        """Return this process's part of a step's batch; rising steps are cheap."""
        ...

    def report(self) -> Iterator[Batch]:
        """Yield frames for the figures in a checkpoint, the same in every process."""
        ...

    def close(self) -> None:
        """Release what the source holds: processes, memory."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Labelled frames of a data set that is read whole."""

    frames_NSSC: NDArray[np.uint8]
    """All images, possibly on disk."""
    rows_M: NDArray[np.int64]
    """Frame of each example."""
    episode_M: NDArray[np.int64]
    """Episode of each example."""
    instructions: Sequence[str]
    """One per episode."""
    labels: dict[str, Tensor]
    """What the objective reads, one row per example."""
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Further inputs (`lapa_core.vla.extra`), one row per frame."""

    def __len__(self) -> int:
        return len(self.rows_M)

    def batch(self, chosen_B: NDArray[np.int64], device: torch.device) -> Batch:
        """Return some examples."""
        rows_B = self.rows_M[chosen_B]
        return Batch(
            load_images(self.frames_NSSC, rows_B, device),
            [self.instructions[episode] for episode in self.episode_M[chosen_B]],
            extra_tensors({name: rows[rows_B] for name, rows in self.extra.items()}, device),
            {name: rows[chosen_B].to(device) for name, rows in self.labels.items()},
        )

    def lengths(self) -> NDArray[np.int64]:
        """Return the length of every example's instruction (M,) [characters]."""
        return np.array([len(text) for text in self.instructions])[self.episode_M]


class ExampleBatches:
    """Batches of `Examples`: every epoch a fresh permutation."""

    def __init__(self, config: LoopConfig, examples: Examples, parallel: Parallel):
        """Draw as the stage's configuration says."""
        self._examples, self._device = examples, parallel.device
        self._at_once = at_once(config, parallel.part)
        self._rows = Rows(
            count=len(examples),
            batch_size=config.batch_size,
            seed=config.seed,
            part=parallel.part,
            lengths_N=examples.lengths(),
            window=config.length_window,
        )

    def batch(self, step: int) -> Batch:
        """As `Batches`."""
        return self._examples.batch(self._rows(step), self._device)

    def report(self) -> Iterator[Batch]:
        """As `Batches`: those of `spread_rows`."""
        rows_R = spread_rows(len(self._examples))
        for part_B in np.array_split(rows_R, -(-len(rows_R) // self._at_once)):
            yield self._examples.batch(part_B, self._device)

    def close(self) -> None:
        """Nothing to release."""


def at_once(config: LoopConfig, part: Part) -> int:
    """Return how many frames a process computes at a time: more might not fit beside what trains."""
    share = -(-config.batch_size // part.world)
    return min(config.micro_batch or share, share)


def spread_rows(count: int, most: int = REPORT_FRAMES) -> NDArray[np.int64]:
    """Return up to `most` row numbers, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
