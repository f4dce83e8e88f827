# SPDX-License-Identifier: Apache-2.0
"""What pretraining reads: codes, instructions, and the frames of a data set or of an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lapa_core.checkpoint import load_config
from lapa_core.data.clip_index import ClipIndex
from lapa_core.data.mixture import SUFFIXES
from lapa_core.data.store import FrameStore
from lapa_core.errors import ContractError, DataError
from lapa_core.laq.label_source import DataIdentity, IndexSource, identify
from lapa_core.laq.labels import LatentLabels
from lapa_core.laq.train_data import frames_only, is_stream
from lapa_core.train.parallel import Parallel
from lapa_core.vla.batches import Batches, ExampleBatches, Examples
from lapa_core.vla.clip_batches import ClipBatches
from lapa_core.vla.config import ModelConfig, PretrainConfig
from lapa_core.vla.extra import load_extra
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.history import HISTORY, earlier_codes

_ADVICE = (
    "run `lapa laq label` on this data set, or give the labels that belong to it; --max-episodes must be that of "
    "the labels (0 for all)"
)


class PretrainData(NamedTuple):
    """What one run learns from."""

    labels: LatentLabels
    """Codes of the frames."""
    instructions: Sequence[str]
    """One per episode or clip."""
    batches: Batches
    """The frames with their codes."""


def open_data(
    config: PretrainConfig, sizes: ModelConfig, store: FrameStore | None, parallel: Parallel
) -> PretrainData:
    """Open an index clip by clip, any other data set whole; every process must call.

    Args:
        config: of the stage.
        sizes: of the model.
        store: replaces the data set on disk.
        parallel: the processes that train together.

    Raises:
        ContractError: options that this kind of data does not have.
        DataError: the data cannot be read, or the labels are not of it.
    """
    if store is None and is_stream(config.data):
        return _open_index(config, sizes, parallel)
    with parallel.leader_first():
        store = store or FrameStore.load(config.data, sizes.image_px, progress=config.progress)
    with parallel.leader_first():
        extra = load_extra(config.data, sizes, store, progress=config.progress)
    store = frames_only(store, config.max_episodes)
    labels = LatentLabels.load(config.labels)
    check_labels(labels, store)
    check_model(labels, config.laq)
    if config.history:
        extra[HISTORY] = earlier_codes(labels.pairs_P2, labels.codes_PK, len(store), config.history)
    first_P = labels.pairs_P2[:, 0]
    examples = Examples(
        frames_NSSC=store.frames,
        rows_M=first_P,
        episode_M=store.episode_ids[first_P],
        instructions=store.instructions,
        labels={"codes": torch.from_numpy(labels.codes_PK)},
        extra=extra,
    )
    return PretrainData(labels, store.instructions, ExampleBatches(config, examples, parallel))


def check_labels(labels: LatentLabels, store: FrameStore) -> None:
    """Refuse labels that were not made for these frames.

    Raises:
        DataError: the labels belong to other data.
    """
    described = f"({store.num_episodes} episodes, {len(store)} frames)"
    _check_data(labels, identify(store), described)
    if not np.array_equal(labels.pairs_P2, store.valid_pairs(labels.gap_s)):
        raise DataError(
            f"the {len(labels.pairs_P2)} pairs of the labels are not those of the data set at {labels.gap_s} s; "
            f"{_ADVICE}"
        )


def check_model(labels: LatentLabels, laq: Path | None) -> None:
    """Refuse labels that were not made by the model at `laq`, if one is given.

    Raises:
        DataError: the labels belong to another checkpoint.
    """
    if laq is None:
        return
    made_by = load_config(laq, "laq")["weights_sha256"]
    if made_by != labels.checkpoint_hash:
        raise DataError(
            f"the labels are of checkpoint {labels.checkpoint_hash[:12]}, {laq} is {made_by[:12]}; {_ADVICE}"
        )


def _open_index(config: PretrainConfig, sizes: ModelConfig, parallel: Parallel) -> PretrainData:
    if config.data.suffix in SUFFIXES:
        raise ContractError(
            f"{config.data} is a mixture, whose corpora are labelled apart; pretrain on one of their indices"
        )
    if isinstance(sizes, HfConfig) and (sizes.proprioception or len(sizes.cameras) > 1):
        raise ContractError(
            f"{config.data} is an index, which has one camera and no state; the model takes {sizes.cameras} and a "
            f"state of {sizes.state_dim} numbers. Give the data set itself"
        )
    index = ClipIndex.load(config.data)
    source = IndexSource(index, sizes.image_px, config.max_episodes)
    labels = LatentLabels.load(config.labels)
    _check_data(labels, source.identity, f"({len(source.names)} clips)")
    check_model(labels, config.laq)
    instructions = [clip.instruction for clip in index.clips[: len(source.names)]]
    batches = ClipBatches(
        config,
        index,
        labels,
        image_px=sizes.image_px,
        part=parallel.part,
        device=parallel.device,
    )
    return PretrainData(labels, instructions, batches)


def _check_data(labels: LatentLabels, data: DataIdentity, described: str) -> None:
    if not labels.data.matches(data):
        raise DataError(
            f"the labels are of the data {labels.data.describe()}, the data set is {data.describe()} {described}; "
            f"{_ADVICE}"
        )
