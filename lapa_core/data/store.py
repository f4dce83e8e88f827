# SPDX-License-Identifier: Apache-2.0
"""All frames of a data set at one size in one array, for training.

Decoding is done once: the array is kept in a cache folder and memory-mapped by later runs. Pairs of
frames are chosen by time, stay inside an episode and are never clamped to its end. Imports numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.episode import Episode, open_source
from lapa_core.errors import DataError
from lapa_core.image import preprocess


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameStore:
    """Episodes laid end to end; episode e is frames[episode_offsets[e] : episode_offsets[e + 1]]."""

    frames: NDArray[np.uint8]
    """(N, S, S, 3) RGB, possibly a read-only memory map."""
    episode_offsets: NDArray[np.int64]
    """(E + 1,) first frame of each episode, and N at the end."""
    instructions: list[str]
    """One per episode."""
    fps: float
    """Frames per second; the median over episodes when they differ."""
    timestamps_s: NDArray[np.float64]
    """(N,) time of each frame from the start of its episode [s]."""
    actions: NDArray[np.float32] | None = None
    """(N, 7) end-effector deltas, or None when the data set has none."""

    def __post_init__(self) -> None:
        offsets, num_frames = self.episode_offsets, len(self.frames)
        if (
            len(offsets) < 2
            or offsets[0] != 0
            or offsets[-1] != num_frames
            or (np.diff(offsets) < 1).any()
        ):
            raise DataError(
                f"episode_offsets {offsets[:4]}..{offsets[-1:]} do not divide {num_frames} frames into "
                "episodes of at least one frame"
            )
        lengths = {"instructions": (len(self.instructions), len(offsets) - 1)}
        lengths["timestamps_s"] = (len(self.timestamps_s), num_frames)
        if self.actions is not None:
            lengths["actions"] = (len(self.actions), num_frames)
        for name, (found, needed) in lengths.items():
            if found != needed:
                raise DataError(f"{name} has {found} entries; {needed} are needed")

    @classmethod
    def load(
        cls,
        path: str | Path,
        image_px: int,
        *,
        camera: str | None = None,
        cache_dir: str | Path | None = None,
        progress: bool = False,
    ) -> FrameStore:
        """Open a data set at `image_px`, from the cache when it was read before.

        Args:
            path: LeRobot v3, RLDS, videos, sub-folders of frames, or MCAP recordings.
            image_px: side of the square frames [px].
            camera: camera to read; None takes the data set's first.
            cache_dir: where decoded frames are kept; None is `$LAPA_CACHE`, else `~/.cache/lapa/frames`.
            progress: show a progress bar while decoding.

        Raises:
            DataError: the data set cannot be read, or has no episodes.
        """
        from lapa_core.data.cache import load_or_build

        return load_or_build(
            open_source(path, camera=camera), image_px, cache_dir, progress=progress
        )

    @classmethod
    def from_episodes(cls, episodes: Iterable[Episode]) -> FrameStore:
        """Lay episodes that are in memory end to end; their frames must be of one square size."""
        items = list(episodes)
        if not items:
            raise DataError("there are no episodes; at least one is needed")
        shapes = sorted({episode.frames.shape[1:] for episode in items})
        if len(shapes) > 1 or shapes[0][0] != shapes[0][1]:
            raise DataError(
                f"frames have shapes {shapes}; one square size is needed: read with image_px"
            )
        return cls(
            frames=np.concatenate([episode.frames for episode in items]),
            episode_offsets=np.cumsum([0, *(len(episode) for episode in items)], dtype=np.int64),
            instructions=[episode.instruction for episode in items],
            fps=float(np.median([episode.fps for episode in items])),
            timestamps_s=np.concatenate([episode.timestamps_s for episode in items]),
            actions=stack_actions(items),
        )

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self.instructions)

    @property
    def episode_ids(self) -> NDArray[np.int64]:
        """(N,) episode of each frame."""
        return np.repeat(np.arange(self.num_episodes), np.diff(self.episode_offsets))

    def valid_pairs(self, gap_s: float) -> NDArray[np.int64]:
        """Return every (frame, later frame) that lies `gap_s` apart, (P, 2), as indices into `frames`.

        The later frame is the one nearest to `gap_s` after the first, at most half a frame period off. A
        frame with no such partner in its own episode gives no pair.

        Raises:
            DataError: the gap is under half a frame period, not finite, or longer than every episode.
        """
        if not (np.isfinite(gap_s) and gap_s > 0):
            raise DataError(f"gap_s is {gap_s}; a positive time in seconds is needed")
        parts = []
        for start, stop in zip(self.episode_offsets[:-1], self.episode_offsets[1:], strict=True):
            pairs = episode_pairs(self.timestamps_s[start:stop], gap_s)
            parts.append(pairs + start)
        pairs = np.concatenate(parts)
        if not len(pairs):
            spans = np.maximum.reduceat(self.timestamps_s, self.episode_offsets[:-1])
            raise DataError(
                f"no pair of frames lies {gap_s} s apart: the longest episode lasts {spans.max():.2f} s at "
                f"{self.fps:g} Hz; give a gap between half a frame period and that"
            )
        return pairs

    def at_size(self, image_px: int) -> FrameStore:
        """Return the same episodes with frames of another size [px]; the same store where they have it."""
        if self.frames.shape[1] == image_px:
            return self
        small = [preprocess(np.asarray(frame), image_px) for frame in self.frames]
        return replace(self, frames=np.stack(small))

    def subset(self, episode_ids: Sequence[int] | NDArray[np.int64]) -> FrameStore:
        """Return the named episodes in the given order; neighbouring ones are a view, others a copy.

        Raises:
            DataError: no episode, or one that does not exist.
        """
        ids = np.asarray(episode_ids, dtype=np.int64)
        if ids.ndim != 1 or not len(ids) or ids.min() < 0 or ids.max() >= self.num_episodes:
            raise DataError(
                f"episode ids {ids[:8]}: one or more of 0 to {self.num_episodes - 1} are needed"
            )
        offsets = self.episode_offsets
        if (np.diff(ids) == 1).all():
            rows: slice | NDArray[np.int64] = slice(offsets[ids[0]], offsets[ids[-1] + 1])
        else:
            rows = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in ids])
        return FrameStore(
            frames=self.frames[rows],
            episode_offsets=np.cumsum([0, *np.diff(offsets)[ids]], dtype=np.int64),
            instructions=[self.instructions[i] for i in ids],
            fps=self.fps,
            timestamps_s=self.timestamps_s[rows],
            actions=None if self.actions is None else self.actions[rows],
        )


def join_stores(stores: Sequence[FrameStore]) -> FrameStore:
    """Lay data sets end to end; a single one is returned as it is.

    Raises:
        DataError: they differ in frame rate or in the size of their frames, or some have actions and others none.
    """
    if len(stores) == 1:
        return stores[0]
    kinds = sorted({(s.fps, s.frames.shape[1], s.actions is not None) for s in stores})
    if len(kinds) != 1:
        told = ", ".join(
            f"{fps:g} Hz at {side} px {'with' if known else 'without'} actions"
            for fps, side, known in kinds
        )
        raise DataError(f"data sets of {told} cannot be joined; give them one size and one rate")
    starts = np.cumsum([0, *(len(store) for store in stores[:-1])])
    ends = [store.episode_offsets[1:] + start for store, start in zip(stores, starts, strict=True)]
    known = [store.actions for store in stores if store.actions is not None]
    return FrameStore(
        frames=np.concatenate([store.frames for store in stores]),
        episode_offsets=np.concatenate([[0], *ends]),
        instructions=[words for store in stores for words in store.instructions],
        fps=stores[0].fps,
        timestamps_s=np.concatenate([store.timestamps_s for store in stores]),
        actions=np.concatenate(known) if known else None,
    )


def stack_actions(episodes: Sequence[Episode]) -> NDArray[np.float32] | None:
    """Join the actions of all episodes, or return None when none has any; a mixture is refused."""
    present = [episode.actions for episode in episodes if episode.actions is not None]
    if not present:
        return None
    if len(present) != len(episodes):
        without = next(episode.source for episode in episodes if episode.actions is None)
        raise DataError(f"{without} has no actions but others do; split the data set")
    return np.concatenate(present).astype(np.float32)


def episode_pairs(times_s: NDArray[np.float64], gap_s: float) -> NDArray[np.int64]:
    """Return every (frame, later frame) of one clip that lies `gap_s` apart, (P, 2), from its (T,) frame times [s]."""
    count = len(times_s)
    if count < 2:
        return np.zeros((0, 2), dtype=np.int64)
    period_s = (times_s[-1] - times_s[0]) / (count - 1)
    if np.abs(np.diff(times_s) - period_s).max() < 1e-3 * period_s:
        step = int(np.floor(gap_s / period_s + 0.5 + 1e-6))  # one step for all: no float noise
        first = np.arange(max(count - step, 0)) if step else np.zeros(0, dtype=np.int64)
        return np.stack([first, first + step], axis=1)
    target_s = times_s + gap_s
    right = np.clip(np.searchsorted(times_s, target_s), 1, count - 1)
    nearer_left = target_s - times_s[right - 1] <= times_s[right] - target_s
    second = np.where(nearer_left, right - 1, right)
    first = np.arange(count)
    kept = (np.abs(times_s[second] - target_s) <= 0.5 * period_s) & (second > first)
    return np.stack([first[kept], second[kept]], axis=1)


def random_later(
    times_N: NDArray[np.float64],
    pairs_P2: NDArray[np.int64],
    last_P: NDArray[np.int64],
    gap_range_s: tuple[float, float],
    share_P: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Choose another later frame for each pair: the one nearest to a gap drawn uniformly from a range.

    Where frames are missing, the nearest one may lie beyond the range; the last one within it is taken then.

    Args:
        times_N: time of every frame, rising [s].
        pairs_P2: pairs as far apart as the lower end of the range; the later frame is never before theirs.
        last_P: last frame that may be chosen for each pair; the range is cut where that lies nearer.
        gap_range_s: shortest and longest gap [s].
        share_P: where in its range each gap lies, 0 to 1.

    Returns:
        The later frame of each pair (P,).
    """
    shortest_s, longest_s = gap_range_s
    first, nearest_allowed = pairs_P2.T
    start_s = times_N[first]
    room_s = times_N[last_P] - start_s
    gap_s = shortest_s + share_P * np.maximum(np.minimum(longest_s, room_s) - shortest_s, 0.0)
    right = np.clip(np.searchsorted(times_N, start_s + gap_s), nearest_allowed, last_P)
    left = np.maximum(right - 1, nearest_allowed)
    target_s = start_s + gap_s
    period_s = (times_N[nearest_allowed] - start_s) / (nearest_allowed - first)
    beyond = times_N[right] - start_s > longest_s + (0.5 + 1e-3) * period_s
    nearer_left = target_s - times_N[left] <= times_N[right] - target_s
    return np.where(nearer_left | beyond, left, right)
