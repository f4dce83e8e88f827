# SPDX-License-Identifier: Apache-2.0
"""What can be labelled: clips that are read by number, and an identity that labels are held to. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.clip_index import ClipIndex
from lapa_core.data.store import FrameStore

_THUMBNAILS = 32
_GRID = 4
_TOLERANCE = 6.0
"""Two readings of one frame at different sizes differ by less in the mean of a block [of 255]."""


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """Which frames labels belong to, whatever the size at which they are read."""

    sha256: str
    """Hash of an index, or of the lengths and times of all episodes."""
    thumbnails: tuple[tuple[float, ...], ...] = ()
    """Grey means of the blocks of some frames (4 x 4 each, row by row) where the hash does not cover pixels."""

    def matches(self, other: DataIdentity) -> bool:
        """Whether both name the same frames; thumbnails may differ by what resizing changes."""
        if self.sha256 != other.sha256 or len(self.thumbnails) != len(other.thumbnails):
            return False
        difference = np.subtract(self.thumbnails, other.thumbnails)
        return not difference.size or bool(np.abs(difference).max() <= _TOLERANCE)

    def describe(self) -> str:
        """Name the data in a few characters, for messages."""
        shown = hashlib.sha256(repr(self.thumbnails).encode()).hexdigest()[:6]
        return f"{self.sha256[:12]}{'/' + shown if self.thumbnails else ''}"


def identify(store: FrameStore) -> DataIdentity:
    """Return the identity of the frames in memory; instructions and actions are no part of it."""
    digest = hashlib.sha256(np.asarray(store.episode_offsets, np.int64).tobytes())
    digest.update(np.round(store.timestamps_s * 1e6).astype(np.int64).tobytes())
    count = min(store.num_episodes, _THUMBNAILS)
    chosen = np.unique(np.linspace(0, store.num_episodes - 1, count).astype(int))
    middle = (store.episode_offsets[chosen] + store.episode_offsets[chosen + 1]) // 2
    return DataIdentity(
        sha256=digest.hexdigest(),
        thumbnails=tuple(_thumbnail(store.frames[frame]) for frame in middle),
    )


def _thumbnail(frame_SSC: NDArray[np.uint8]) -> tuple[float, ...]:
    rows = np.array_split(frame_SSC.astype(np.float64).mean(axis=2), _GRID)
    return tuple(
        round(float(block.mean()), 2)
        for row in rows
        for block in np.array_split(row, _GRID, axis=1)
    )


class LabelSource(Protocol):
    """Clips in a fixed order."""

    identity: DataIdentity
    """What they are."""
    names: list[str]
    """Name of each clip."""
    num_frames: list[int]
    """Frames of each clip."""

    def pairs(self, clip: int, gap_s: float) -> NDArray[np.int64]:
        """Return every (frame, later frame) of a clip that lie `gap_s` apart, (P, 2), as numbers within the clip."""
        ...

    def times_s(self, clip: int) -> NDArray[np.float64]:
        """Return the time of each frame of a clip from its start [s]."""
        ...

    def read(self, clip: int, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return these frames of a clip, (n, S, S, 3) at the model's size."""
        ...


class StoreSource:
    """Episodes of a `FrameStore` as clips."""

    def __init__(self, store: FrameStore) -> None:
        self.identity = identify(store)
        self.num_frames = np.diff(store.episode_offsets).tolist()
        self.names = [f"episode_{number:06d}" for number in range(store.num_episodes)]
        self._store = store
        self._pairs: tuple[float, NDArray[np.int64]] | None = None

    def pairs(self, clip: int, gap_s: float) -> NDArray[np.int64]:
        """Return the pairs of one episode."""
        if self._pairs is None or self._pairs[0] != gap_s:
            self._pairs = gap_s, self._store.valid_pairs(gap_s)
        pairs_P2 = self._pairs[1]
        start, stop = self._store.episode_offsets[clip : clip + 2]
        first, last = np.searchsorted(pairs_P2[:, 0], (start, stop))
        return pairs_P2[first:last] - start

    def times_s(self, clip: int) -> NDArray[np.float64]:
        """Return the times of one episode."""
        start, stop = self._store.episode_offsets[clip : clip + 2]
        return self._store.timestamps_s[start:stop]

    def read(self, clip: int, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return frames of one episode."""
        return np.asarray(self._store.frames[self._store.episode_offsets[clip] + frames])


class IndexSource:
    """Clips of a `ClipIndex`, decoded as they are asked for."""

    def __init__(self, index: ClipIndex, image_px: int, max_clips: int = 0) -> None:
        """Take the first `max_clips` clips (0: all), to be read at `image_px`."""
        self._index, self._image_px = index, image_px
        self._clips = index.clips[:max_clips] if max_clips else index.clips
        self.names = [clip.id for clip in self._clips]
        self.num_frames = [len(clip) for clip in self._clips]
        chosen = f"{index.identity} {index.camera} {len(self._clips)}"
        self.identity = DataIdentity(sha256=hashlib.sha256(chosen.encode()).hexdigest())

    def pairs(self, clip: int, gap_s: float) -> NDArray[np.int64]:
        """Return the pairs of one clip."""
        return self._index.pairs(self._clips[clip], gap_s)

    def times_s(self, clip: int) -> NDArray[np.float64]:
        """Return the times of one clip."""
        return self._clips[clip].times_s

    def read(self, clip: int, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode frames of one clip."""
        return self._index.read(self._clips[clip], frames, self._image_px)
