# SPDX-License-Identifier: Apache-2.0
"""Which clip is decoded next, and which of its pairs are used: pure functions of the seed and a running number.

A visit decodes one window of one clip and yields K pairs. Windows divide the first frames of all pairs of a clip, so
each pair belongs to exactly one. They begin at key frames where these lie close enough together; a longer group is
divided evenly, and decoding starts at the key frame before, so that those frames are paid for. Imports numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.clip import Clip
from lapa_core.data.mixture import Corpus
from lapa_core.data.store import random_later
from lapa_core.errors import DataError

_BLOCK = 1024
"""Visits within which the corpora have exactly their shares."""


class Visit(NamedTuple):
    """One window of one clip, and the pairs that are drawn from it."""

    corpus: int
    """Which corpus."""
    clip: Clip
    """Which clip of it."""
    frames: NDArray[np.int64]
    """(F,) frame numbers to decode, increasing."""
    places_K2: NDArray[np.int64]
    """Where in `frames` the two frames of each pair are."""


class VisitPlan:
    """The endless sequence of visits to some corpora.

    Args:
        corpora: clips, gaps and weights.
        pairs_per_visit: K; a window with fewer pairs repeats them.
        span_frames: most first frames of a window.
        seed: seed of everything.

    Raises:
        DataError: a corpus has no pair, or a weight too small to be kept.
    """

    def __init__(
        self, corpora: Sequence[Corpus], *, pairs_per_visit: int, span_frames: int, seed: int
    ) -> None:
        self.corpora = list(corpora)
        self.pairs_per_visit = pairs_per_visit
        self.seed = seed
        self.windows_W3 = [corpus_windows(corpus, span_frames) for corpus in self.corpora]
        self._counts = block_counts([corpus.weight for corpus in self.corpora])

    def visit(self, number: int, attempt: int = 0) -> Visit:
        """Return a visit; attempts after the first are other windows of the same corpus, for clips that fail."""
        block, position = divmod(number, _BLOCK)
        order = self._block_order(block)
        corpus = int(order[position])
        rank = int(np.count_nonzero(order[:position] == corpus))
        windows_W3 = self.windows_W3[corpus]
        rng = np.random.default_rng([self.seed, number, attempt])
        if attempt:
            chosen = int(rng.integers(len(windows_W3)))
        else:
            epoch, place = divmod(block * int(self._counts[corpus]) + rank, len(windows_W3))
            chosen = int(_epoch_order(len(windows_W3), self.seed, corpus, epoch)[place])
        clip_number, start, stop = windows_W3[chosen].tolist()
        source = self.corpora[corpus]
        clip = source.index.clips[clip_number]
        pairs_P2 = source.index.pairs(clip, source.gap_s)[start:stop]
        drawn_K2 = pairs_P2[np.resize(rng.permutation(len(pairs_P2)), self.pairs_per_visit)]
        if source.gap_max_s is not None:
            last_K = np.full(len(drawn_K2), len(clip) - 1)
            gaps_s = (source.gap_s, source.gap_max_s)
            drawn_K2[:, 1] = random_later(
                clip.times_s, drawn_K2, last_K, gaps_s, rng.random(len(drawn_K2))
            )
        frames, places = np.unique(drawn_K2, return_inverse=True)
        return Visit(corpus, clip, frames, places.reshape(-1, 2))

    def _block_order(self, block: int) -> NDArray[np.int16]:
        return _block_order(tuple(self._counts.tolist()), self.seed, block)


def corpus_windows(corpus: Corpus, span_frames: int) -> NDArray[np.int32]:
    """Return (clip place, first pair, pair after the last) of every window that has a pair, (W, 3).

    Raises:
        DataError: no clip is long enough for the gap.
    """
    rows = []
    for place, clip in enumerate(corpus.index.clips):
        first = corpus.index.pairs(clip, corpus.gap_s)[:, 0]
        if not len(first):
            continue
        starts = window_edges(int(first[-1]) + 1, clip.keyframes, span_frames)
        edges = np.searchsorted(first, starts)
        rows += [(place, a, b) for a, b in pairwise(edges.tolist()) if b > a]
    if not rows:
        longest_s = max(clip.duration_s for clip in corpus.index.clips)
        raise DataError(
            f"{corpus.index.root}: no pair of frames lies {corpus.gap_s} s apart in any of "
            f"{len(corpus.index)} clips; the longest lasts {longest_s:.2f} s: give another gap_s"
        )
    return np.asarray(rows, dtype=np.int32)


def window_edges(count: int, keyframes: NDArray[np.int32], span_frames: int) -> list[int]:
    """Return where the windows of `count` frames begin, and `count` at the end: key frames where they serve.

    No window is shorter than about half the span: every visit yields K pairs, so those of a window of two frames would
    be seen many times as often as others.
    """
    span = -(-count // -(-count // span_frames))
    edges = [0]
    while (start := edges[-1]) + span < count:
        nearest, furthest = start + max(1, span // 2), min(start + span, count - span // 2)
        place = int(np.searchsorted(keyframes, furthest, side="right"))
        edge = int(keyframes[place - 1]) if place else 0
        if edge < nearest:  # no key frame serves: equal parts up to the next one
            place = int(np.searchsorted(keyframes, start + span, side="right"))
            stop = int(keyframes[place]) if place < len(keyframes) else count
            stop = count if stop > count - span // 2 else stop
            edge = start + -(-(stop - start) // -(-(stop - start) // span))
        edges.append(edge)
    return [*edges, count]


def block_counts(weights: Sequence[float]) -> NDArray[np.int64]:
    """Return how many of a block's visits each corpus gets: its share, the largest remainders rounded up.

    Raises:
        DataError: a corpus would get none.
    """
    shares = np.asarray(weights, np.float64) / np.sum(weights) * _BLOCK
    counts = np.floor(shares).astype(np.int64)
    counts[np.argsort(counts - shares, kind="stable")[: _BLOCK - counts.sum()]] += 1
    if not counts.all():
        raise DataError(
            f"weights {list(weights)}: corpus {int(np.argmin(counts))} has a share below 1/{_BLOCK}; "
            "raise its weight or leave it out"
        )
    return counts


@lru_cache(maxsize=8)
def _block_order(counts: tuple[int, ...], seed: int, block: int) -> NDArray[np.int16]:
    """Return the corpus of each visit of a block: random, and near the shares in every stretch of it."""
    rng = np.random.default_rng([seed, block, 1])
    places = np.concatenate([(np.arange(n) + rng.random(n)) / n for n in counts])
    corpora = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    return corpora[np.argsort(places, kind="stable")]


@lru_cache(maxsize=32)
def _epoch_order(count: int, seed: int, corpus: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, corpus, epoch, 2]).permutation(count)
