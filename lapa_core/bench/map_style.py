# SPDX-License-Identifier: Apache-2.0
"""The usual loader, to measure ours against: a map-style data set of pairs behind torch's DataLoader.

Each item is any pair of any clip. Of a video it seeks to the key frame before the first frame and decodes on to the
later one, in containers that stay open, with the same resize as ours; pictures are read as ours are, two by two.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from lapa_core.data.clip_index import ClipIndex
from lapa_core.data.scaled_video import SquareScaler
from lapa_core.errors import DataError


class RandomPairs(Dataset[tuple[Tensor, Tensor]]):
    """Every pair of every clip of an index, by number."""

    def __init__(self, index: ClipIndex, gap_s: float, image_px: int) -> None:
        self.index, self.image_px = index, image_px
        self.items = [
            (place, first, later)
            for place, clip in enumerate(index.clips)
            for first, later in index.pairs(clip, gap_s).tolist()
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the two frames of a pair, (S, S, 3) uint8 each."""
        place, first, later = self.items[number]
        clip = self.index.clips[place]
        if clip.stored:
            pair: NDArray[np.uint8] = np.empty((2, self.image_px, self.image_px, 3), np.uint8)
            container, scaler = _opened(str(self.index.root / clip.path), self.image_px)
            _read_pair(container, scaler, (int(clip.pts[first]), int(clip.pts[later])), pair)
        else:
            pair = self.index.read(clip, [first, later], self.image_px)
        return torch.from_numpy(pair[0]), torch.from_numpy(pair[1])


@lru_cache(maxsize=64)
def _opened(path: str, image_px: int) -> tuple[av.container.InputContainer, SquareScaler]:
    container = av.open(path)
    container.streams.video[0].thread_type = "NONE"
    return container, SquareScaler(image_px)


def _read_pair(
    container: av.container.InputContainer,
    scaler: SquareScaler,
    wanted: tuple[int, int],
    out_2SSC: NDArray[np.uint8],
) -> None:
    stream = container.streams.video[0]
    container.seek(wanted[0], stream=stream, backward=True)
    for frame in container.decode(stream):
        if frame.pts == wanted[0]:
            scaler(frame, out_2SSC[0])
        elif frame.pts == wanted[1]:
            scaler(frame, out_2SSC[1])
            return
    raise DataError(f"{Path(container.name).name} has no frames at ticks {wanted}")


def make_loader(
    pairs: RandomPairs, *, batch_size: int, workers: int, seed: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return random pairs in batches, without end for any use: drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(
        pairs,
        batch_size=batch_size,
        sampler=RandomSampler(pairs, replacement=True, num_samples=10**8, generator=generator),
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
    )
