# SPDX-License-Identifier: Apache-2.0
"""The work of one shard: read frames, encode pairs, return the bytes of the file.

Runs in this process, in a worker process or on another machine; what it returns depends on the frames, the weights
and `LabelFacts` alone. Batches are cut from the shard's own rows and torch keeps to one thread, because the order in
which a sum is taken changes its last bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lapa_core.data.clip_index import INDEX_NAME
from lapa_core.data.index import open_index_or_scan
from lapa_core.data.store import FrameStore
from lapa_core.errors import CheckpointError, DataError
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.label_files import LabelFacts, shard_bytes
from lapa_core.laq.label_plan import Shard
from lapa_core.laq.label_source import IndexSource, LabelSource, StoreSource
from lapa_core.laq.train import frames_only


class Opened(NamedTuple):
    """What the shards of one run are made from."""

    source: LabelSource
    """The clips."""
    model: LatentActionModel
    """The model that names their motion."""
    checkpoint_hash: str
    """SHA-256 of its weights."""
    gap_s: float
    """Time between the frames of a pair in its training [s]."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the data and the model are, for whichever process opens them."""

    data: Path
    """Data set."""
    checkpoint: Path
    """Directory of the model."""
    checkpoint_hash: str
    """SHA-256 of its weights: a model that was trained anew is opened anew."""
    max_episodes: int
    """Use only the first clips; 0 uses all."""
    device: str
    """Torch device."""
    scan: bool
    """Index the data set first when it is not an index; else its frames are decoded into a `FrameStore`."""

    def open(self, store: FrameStore | None = None) -> Opened:
        """Load the model and open the data at its size; `store` replaces the data set on disk."""
        model, config = load_laq(self.checkpoint, self.device)
        source = self._source(model.image_px, store)
        return Opened(source, model, config["weights_sha256"], config["gap_s"])

    def _source(self, image_px: int, store: FrameStore | None) -> LabelSource:
        indexed = self.data.name == INDEX_NAME or (self.data / INDEX_NAME).is_file()
        if store is None and (indexed or self.scan):
            index = open_index_or_scan(self.data, progress=False)
            return IndexSource(index, image_px, self.max_episodes)
        store = store or FrameStore.load(self.data, image_px)
        return StoreSource(frames_only(store, self.max_episodes))


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """Makes shards from what lies on disk, opened once per process."""

    inputs: Inputs
    """What to open."""
    facts: LabelFacts
    """What it must turn out to be, and how to label it."""

    def __call__(self, shard: Shard) -> bytes:
        """Return the file of a shard.

        Raises:
            DataError: other data lies there for this process than for the one that made the plan.
            CheckpointError: the same for the model.
        """
        opened = open_once(self.inputs)
        if not opened.source.identity.matches(self.facts.data):
            raise DataError(
                f"{self.inputs.data} is {opened.source.identity.describe()} for a worker but "
                f"{self.facts.data.describe()} for its caller; put it where both see the same files"
            )
        if opened.checkpoint_hash != self.facts.checkpoint_hash:
            raise CheckpointError(
                f"{self.inputs.checkpoint} has weights {opened.checkpoint_hash[:12]} for a worker but "
                f"{self.facts.checkpoint_hash[:12]} for its caller; put it where both see the same files"
            )
        return make_shard(shard, opened.source, opened.model, self.facts)


@lru_cache(maxsize=1)
def open_once(inputs: Inputs) -> Opened:
    """Open, or return what this process has open."""
    return inputs.open()


def make_shard(
    shard: Shard, source: LabelSource, model: LatentActionModel, facts: LabelFacts
) -> bytes:
    """Label the pairs of a shard and return its file."""
    pairs = [source.pairs(span.clip, facts.gap_s)[span.first : span.stop] for span in shard.spans]
    with _one_thread():
        parts = [model.encode(*batch) for batch in _batches(shard, pairs, source, facts)]
    lengths = [len(pairs_P2) for pairs_P2 in pairs]
    pairs_P2 = np.concatenate(pairs)
    episode_P = np.repeat([span.clip for span in shard.spans], lengths)
    columns = {
        "episode": episode_P,
        "clip": [source.names[clip] for clip in episode_P],
        "frame": pairs_P2[:, 0],
        "later": pairs_P2[:, 1],
        "time_s": np.concatenate(
            [
                source.times_s(span.clip)[pairs_P2[:, 0]]
                for span, pairs_P2 in zip(shard.spans, pairs, strict=True)
            ]
        ),
    }
    return shard_bytes(
        facts,
        columns,
        np.concatenate([part.codes_BK for part in parts]),
        np.concatenate([part.vectors_BKD for part in parts]),
    )


def _batches(
    shard: Shard, pairs: list[NDArray[np.int64]], source: LabelSource, facts: LabelFacts
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield frames and later frames, `batch_size` pairs at a time across the clips of the shard."""
    size = facts.batch_size
    held: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
    count = 0
    for span, pairs_P2 in zip(shard.spans, pairs, strict=True):
        numbers, position_2P = np.unique(pairs_P2, return_inverse=True)
        frames = source.read(span.clip, numbers)
        first_P, later_P = position_2P.reshape(-1, 2).T
        start = 0
        while start < len(pairs_P2):
            taken = slice(start, start + size - count)
            held.append((frames[first_P[taken]], frames[later_P[taken]]))
            start += len(held[-1][0])
            count += len(held[-1][0])
            if count == size:
                yield _join(held)
                held, count = [], 0
    if held:
        yield _join(held)


def _join(
    held: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    first, later = zip(*held, strict=True)
    return np.concatenate(first), np.concatenate(later)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
