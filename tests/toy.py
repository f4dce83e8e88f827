# SPDX-License-Identifier: Apache-2.0
"""A toy data set that the learning stages understand: a dot that moves left, right, up or down as it was told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lapa_core.data.store import FrameStore
from lapa_core.laq.config import PatchLaqConfig

TOY_PATCH = PatchLaqConfig(
    image_px=32,
    patch_px=4,
    dim=16,
    heads=2,
    spatial_depth=1,
    temporal_depth=1,
    decoder_depth=1,
    code_dim=8,
)
"""The paper's layout, small enough for a test."""

_DIRECTION = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


def toy_store(episodes: int = 12, length: int = 8, image_px: int = 32, seed: int = 0) -> FrameStore:
    """Return episodes at 5 Hz in which a bright dot moves by 2 px per frame; actions are metres in x and y."""
    rng = np.random.default_rng(seed)
    frames = np.full((episodes, length, image_px, image_px, 3), 60, np.uint8)
    actions = np.zeros((episodes, length, 7), np.float32)
    words = list(_DIRECTION)
    instructions = []
    for episode in range(episodes):
        word = words[episode % 4]
        step = np.array(_DIRECTION[word])
        start = image_px // 2 - step * length + rng.integers(-3, 4, size=2)
        for t in range(length):
            y, x = np.clip(start + 2 * step * t, 1, image_px - 4)
            frames[episode, t, y : y + 4, x : x + 4] = (230, 40, 40)
        actions[episode, :, :2] = step * 0.02 + rng.normal(0, 0.002, (length, 2))
        instructions.append(f"move the dot {word}")
    return FrameStore(
        frames=frames.reshape(-1, image_px, image_px, 3),
        episode_offsets=np.arange(episodes + 1) * length,
        instructions=instructions,
        fps=5.0,
        timestamps_s=np.tile(np.arange(length) / 5.0, episodes),
        actions=actions.reshape(-1, 7),
    )


def write_labels(
    folder: Path, store: FrameStore, codes_PK: NDArray[np.int64], gap_s: float
) -> Path:
    """Write labels with chosen codes (their own vectors, one-hot) as if a model had made them."""
    from lapa_core.laq.label_files import LabelFacts, shard_bytes, write_facts, write_whole
    from lapa_core.laq.label_plan import plan_shards
    from lapa_core.laq.label_source import StoreSource

    source = StoreSource(store)
    centres_ND = np.eye(int(codes_PK.max()) + 1, dtype=np.float32)
    facts = LabelFacts(
        checkpoint_hash="0" * 64,
        gap_s=gap_s,
        image_px=store.frames.shape[1],
        tokens=codes_PK.shape[1],
        dim=centres_ND.shape[1],
        centres=centres_ND.tolist(),
        data=source.identity,
        frames_per_clip=source.num_frames,
        shard_rows=len(codes_PK),
        batch_size=1,
    )
    pairs = [source.pairs(clip, gap_s) for clip in range(store.num_episodes)]
    (shard,) = plan_shards(map(len, pairs), facts.shard_rows)
    episode_P = np.repeat(np.arange(store.num_episodes), [len(part) for part in pairs])
    first_P, later_P = np.concatenate(pairs).T
    columns = {
        "episode": episode_P,
        "clip": [source.names[episode] for episode in episode_P],
        "frame": first_P,
        "later": later_P,
        "time_s": store.timestamps_s[store.valid_pairs(gap_s)[:, 0]],
    }
    folder.mkdir(parents=True)
    content = shard_bytes(facts, columns, codes_PK, centres_ND[codes_PK])
    write_whole(folder / shard.name, content)
    write_facts(folder, facts, [hashlib.sha256(content).hexdigest()])
    return folder


class Interrupted(Exception):
    """Somebody presses Ctrl-C in a training."""


def die_after_step(patch: pytest.MonkeyPatch, last: int) -> None:
    """Interrupt every training after a step (counted from 0), when its state has been saved if that was due."""
    from lapa_core.train.run import TrainingRun

    real = TrainingRun.save

    def save(self: TrainingRun, step: int, *rest: object) -> None:
        real(self, step, *rest)  # type: ignore[arg-type]
        if step == last:
            raise Interrupted

    patch.setattr(TrainingRun, "save", save)
