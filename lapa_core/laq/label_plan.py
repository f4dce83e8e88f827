# SPDX-License-Identifier: Apache-2.0
"""How the pairs of a data set are dealt into shards: by the clips alone, never by who works on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

SPAN_ROWS = 512
"""Most pairs of a clip that are read at once: bounds the memory of a worker (100 MB at 256 px)."""


class Span(NamedTuple):
    """Neighbouring pairs of one clip."""

    clip: int
    """Position of the clip in the data set."""
    first: int
    """First pair of the clip."""
    stop: int
    """One behind the last."""


@dataclass(frozen=True)
class Shard:
    """One file of labels."""

    number: int
    """Position among the shards."""
    spans: tuple[Span, ...]
    """Its pairs, in order."""

    @property
    def name(self) -> str:
        """File name."""
        return f"labels-{self.number:05d}.parquet"

    @property
    def rows(self) -> int:
        """Pairs of the shard."""
        return sum(span.stop - span.first for span in self.spans)


def plan_shards(rows_per_clip: Iterable[int], shard_rows: int) -> list[Shard]:
    """Fill shards with whole clips in order; a clip is divided only when it is longer than `SPAN_ROWS` pairs.

    Args:
        rows_per_clip: pairs of each clip.
        shard_rows: a shard is closed before it would have more pairs than this.
    """
    shards: list[Shard] = []
    spans: list[Span] = []
    rows = 0
    for span in _spans(rows_per_clip, min(shard_rows, SPAN_ROWS)):
        length = span.stop - span.first
        if spans and rows + length > shard_rows:
            shards.append(Shard(len(shards), tuple(spans)))
            spans, rows = [], 0
        spans.append(span)
        rows += length
    if spans:
        shards.append(Shard(len(shards), tuple(spans)))
    return shards


def _spans(rows_per_clip: Iterable[int], most: int) -> Iterator[Span]:
    for clip, rows in enumerate(rows_per_clip):
        for first in range(0, rows, most):
            yield Span(clip, first, min(first + most, rows))
