# SPDX-License-Identifier: Apache-2.0
"""What a latent action model is trained on: frames in memory or a stream of clips, and labelled pairs if asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapa_core.data.clip_index import INDEX_NAME
from lapa_core.data.mixture import SUFFIXES, load_mixture
from lapa_core.data.store import FrameStore
from lapa_core.errors import ContractError, DataError
from lapa_core.laq.train_config import LaqTrainConfig
from lapa_core.train.pairs import PairBatches, StorePairs, rank_share


def frames_only(store: FrameStore, max_episodes: int = 0) -> FrameStore:
    """Drop the actions: the stages that learn from videos cannot reach them."""
    if max_episodes:
        store = store.subset(range(min(max_episodes, store.num_episodes)))
    return FrameStore(
        frames=store.frames,
        episode_offsets=store.episode_offsets,
        instructions=store.instructions,
        fps=store.fps,
        timestamps_s=store.timestamps_s,
    )


def is_stream(path: Path) -> bool:
    """Return whether a path is an index of `lapa data index` or a mixture file, which are read clip by clip."""
    return path.suffix in SUFFIXES or (path / INDEX_NAME).is_file()


def _stream_sha256(path: Path) -> str:
    """Return a hash of what a stream holds: an index, or a mixture and the indices or data folders that it names."""
    parts = [path.read_bytes()] if path.suffix in SUFFIXES else []
    folders = [corpus.data for corpus in load_mixture(path)] if parts else [path]
    for folder in folders:
        index = folder / INDEX_NAME
        known = index.read_bytes() if index.is_file() else _scanned(folder)
        parts.append(known)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _scanned(folder: Path) -> bytes:
    """Return what a data folder holds now."""
    from lapa_core.data.index import open_index_or_scan

    return open_index_or_scan(folder).identity.encode()


@dataclass(frozen=True)
class LaqData:
    """The frames, without actions, and the labelled episodes."""

    config: LaqTrainConfig
    """What was asked for."""
    store: FrameStore | None
    """All frames, or None where they come as a stream."""
    labelled: FrameStore | None
    """Episodes with actions for the head; None without one."""

    @classmethod
    def load(
        cls, config: LaqTrainConfig, store: FrameStore | None, labelled: FrameStore | None
    ) -> LaqData:
        """Load what is not in memory already.

        Raises:
            ContractError: options that this kind of data does not have, or labelled episodes without `labelled`.
            DataError: the labelled data set has no actions.
        """
        if store is not None or not is_stream(config.data):
            store = store or FrameStore.load(
                config.data, config.model.image_px, progress=config.progress
            )
            store = frames_only(store, config.max_episodes)
        return cls(config, store, _load_labelled(config, labelled))

    @property
    def gap_s(self) -> float:
        """Time between the frames of a pair that the model is for [s]: of a mixture that of its heaviest corpus."""
        if self.store is not None or self.config.data.suffix not in SUFFIXES:
            return self.config.gap_s
        return max(load_mixture(self.config.data), key=lambda corpus: corpus.weight).gap_s

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run must find again."""
        if self.store is not None:
            facts: dict[str, Any] = {"pairs": len(self.store.valid_pairs(self.config.gap_s))}
        else:
            facts = {"stream_sha256": _stream_sha256(self.config.data)}
        if self.labelled is not None:
            facts["labelled_pairs"] = len(self.labelled.valid_pairs(self.gap_s))
        return facts

    def pairs(self, *, rank: int, world: int, first_step: int) -> PairBatches:
        """Open the pairs that training reads."""
        return self._open(rank, world, first_step, self.config.gap_range_s)

    def examples(self) -> tuple[PairBatches, int]:
        """Open pairs as labelling forms them, for one process, and say how many batches make an epoch."""
        batches = self._open(0, 1, 0, None)
        if isinstance(batches, StorePairs):
            return batches, len(batches.pairs_P2) // batches.batch_size
        return batches, self.config.steps

    def labelled_pairs(self, *, rank: int, world: int) -> StorePairs | None:
        """Open the labelled pairs, if there are any."""
        if self.labelled is None:
            return None
        return StorePairs(
            self.labelled,
            batch_size=self.config.labelled_batch_size,
            gap_s=self.gap_s,
            seed=self.config.seed,
            rank=rank,
            world=world,
        )

    def _open(
        self, rank: int, world: int, first_step: int, gap_range_s: tuple[float, float] | None
    ) -> PairBatches:
        config = self.config
        if self.store is not None:
            return StorePairs(
                self.store,
                batch_size=config.batch_size,
                gap_s=config.gap_s,
                gap_range_s=gap_range_s,
                seed=config.seed,
                rank=rank,
                world=world,
            )
        from lapa_core.data.pair_stream import open_pairs

        rank_share(config.batch_size, world)
        return open_pairs(
            config.data,
            image_px=config.model.image_px,
            batch_size=config.batch_size,
            gap_s=config.gap_s,
            gap_range_s=gap_range_s,
            seed=config.seed,
            rank=rank,
            world=world,
            first_step=first_step,
            workers=config.workers,
            max_clips=config.max_episodes,
        )


def _load_labelled(config: LaqTrainConfig, labelled: FrameStore | None) -> FrameStore | None:
    if config.labelled is None:
        if labelled is not None:
            raise ContractError(
                "labelled episodes were given but config.labelled names none; set it, so that the checkpoint says so"
            )
        return None
    labelled = labelled or FrameStore.load(
        config.labelled, config.model.image_px, progress=config.progress
    )
    if labelled.actions is None:
        raise DataError(
            f"{config.labelled} has no actions, which --labelled needs; record a data set with "
            "`lapa sim collect --with-actions`, or leave --labelled out"
        )
    if config.labelled_episodes:
        labelled = labelled.subset(range(min(config.labelled_episodes, labelled.num_episodes)))
    return labelled
