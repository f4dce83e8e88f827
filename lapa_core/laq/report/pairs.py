# SPDX-License-Identifier: Apache-2.0
"""The frame pairs that a report measures, in random order, with what is known about each. Imports numpy.

Shapes: P pairs, T triplets, S image side [px], A action dimensions (7).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lapa_core.data.clip import Clip
from lapa_core.data.clip_index import ClipIndex
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.laq.probe import motion

MAX_TRIPLETS = 1000
"""Triplets of past, present and future frame that are read at most; never more than pairs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportPairs:
    """Pairs of frames `gap_s` apart, shuffled, so that neighbours in the list come from different places."""

    frames_NSSC: NDArray[np.uint8]
    """Frames that the indices below point into, possibly a memory map."""
    pairs_P2: NDArray[np.int64]
    """Indices of first and later frame."""
    episode_P: NDArray[np.int64]
    """Episode or clip of each pair, as the data set numbers them."""
    names: dict[int, str]
    """What each of these episodes is called: a number or a file."""
    number_P2: NDArray[np.int64]
    """The frames' numbers within their episode, for people who want to look."""
    triplets_T3: NDArray[np.int64]
    """Indices of frames `gap_s` before, at and after a moment."""
    motion_P7: NDArray[np.float64] | None
    """Commanded motion during each pair, in the order of `ACTION_NAMES`; None without actions."""
    available: int
    """Pairs that the data set holds."""
    gap_s: float
    """Time between the frames of a pair [s]."""

    def __len__(self) -> int:
        return len(self.pairs_P2)

    def frames(
        self, rows: NDArray[np.int64] | slice
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return first and later frames of some pairs, each (B, S, S, 3)."""
        pairs_B2 = self.pairs_P2[rows]
        return self.frames_NSSC[pairs_B2[:, 0]], self.frames_NSSC[pairs_B2[:, 1]]

    @property
    def folds_P(self) -> NDArray[np.int64]:
        """A number per episode in the random order of the pairs: even ones fit a probe, odd ones score it.

        Data sets often take their tasks in turns, so even and odd episodes as recorded can be different tasks.
        """
        _, first_seen, inverse = np.unique(self.episode_P, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first_seen))[inverse]


def pairs_of_store(
    store: FrameStore, gap_s: float, *, max_pairs: int, seed: int, first_episode: int = 0
) -> ReportPairs:
    """Draw pairs from episodes in memory.

    Args:
        store: the episodes.
        gap_s: time between the frames of a pair [s].
        max_pairs: pairs to draw; 0 takes all.
        seed: seed of the draw.
        first_episode: number of the store's first episode in the data set.

    Raises:
        DataError: no pair of frames lies so far apart.
    """
    rng = np.random.default_rng(seed)
    every_P2 = store.valid_pairs(gap_s)
    pairs_P2 = every_P2[rng.permutation(len(every_P2))[: max_pairs or None]]
    episode_P = store.episode_ids[pairs_P2[:, 0]]
    shown = np.unique(episode_P) + first_episode
    return ReportPairs(
        frames_NSSC=store.frames,
        pairs_P2=pairs_P2,
        episode_P=episode_P + first_episode,
        names={int(episode): f"episode {episode}" for episode in shown},
        number_P2=pairs_P2 - store.episode_offsets[episode_P][:, None],
        triplets_T3=_triplets(every_P2, rng, min(MAX_TRIPLETS, len(pairs_P2))),
        motion_P7=None if store.actions is None else motion(store, pairs_P2),
        available=len(every_P2),
        gap_s=gap_s,
    )


def pairs_of_index(
    index: ClipIndex,
    image_px: int,
    gap_s: float,
    *,
    max_pairs: int,
    seed: int,
    first_clip: int = 0,
    clips: int = 0,
    progress: bool = False,
) -> ReportPairs:
    """Draw pairs from an index, and read only the frames of these. An index knows no actions.

    Args:
        index: what `lapa data index` wrote.
        image_px: side to read frames at [px].
        gap_s: time between the frames of a pair [s].
        max_pairs: pairs to draw, as many from each clip as it takes; 0 takes all, and all their frames into memory.
        seed: seed of the draw.
        first_clip: first clip used.
        clips: clips used; 0 uses all to the end.
        progress: show a progress bar while reading.

    Raises:
        DataError: no clip has a pair of frames so far apart.
    """
    rng = np.random.default_rng(seed)
    end = first_clip + clips if clips else len(index)
    chosen = [(clip, index.pairs(clip, gap_s)) for clip in index.clips[first_clip:end]]
    chosen = [(clip, pairs_P2) for clip, pairs_P2 in chosen if len(pairs_P2)]
    if not chosen:
        raise DataError(
            f"no pair of frames lies {gap_s} s apart in the clips {first_clip} to {end - 1} of {index.root}"
        )
    available = sum(len(pairs_P2) for _, pairs_P2 in chosen)
    drawn = rng.permutation(available)[: max_pairs or None]
    clip_P = np.repeat(np.arange(len(chosen)), [len(pairs_P2) for _, pairs_P2 in chosen])[drawn]
    number_P2 = np.concatenate([pairs_P2 for _, pairs_P2 in chosen])[drawn]
    frames, pairs_P2, triplets = [], np.zeros_like(number_P2), []
    held, places = 0, np.unique(clip_P)
    most_triplets = min(MAX_TRIPLETS, len(drawn))
    for place in tqdm(places, desc="clips", disable=not progress):
        clip, every_P2 = chosen[place]
        mine = clip_P == place
        threes_T3 = _triplets(every_P2, rng, -(-most_triplets // len(places)))
        wanted = np.unique(np.concatenate([number_P2[mine].ravel(), threes_T3.ravel()]))
        frames.append(index.read(clip, wanted, image_px))
        pairs_P2[mine] = held + np.searchsorted(wanted, number_P2[mine])
        triplets.append(held + np.searchsorted(wanted, threes_T3))
        held += len(wanted)
    return ReportPairs(
        frames_NSSC=np.concatenate(frames),
        pairs_P2=pairs_P2,
        episode_P=np.array([chosen[place][0].number for place in clip_P]),
        names={chosen[place][0].number: _name(chosen[place][0]) for place in places},
        number_P2=number_P2,
        triplets_T3=np.concatenate(triplets)[:most_triplets],
        motion_P7=None,
        available=available,
        gap_s=gap_s,
    )


def _name(clip: Clip) -> str:
    return f"clip {clip.number} ({clip.id})"


def _triplets(
    pairs_P2: NDArray[np.int64], rng: np.random.Generator, most: int
) -> NDArray[np.int64]:
    """Join pairs of which one ends where another begins, at most `most` of them."""
    later_of = dict(pairs_P2.tolist())
    chained = [(a, b, later_of[b]) for a, b in later_of.items() if b in later_of]
    triplets_T3 = np.array(chained, dtype=np.int64).reshape(-1, 3)
    return triplets_T3[np.sort(rng.permutation(len(triplets_T3))[:most])]
