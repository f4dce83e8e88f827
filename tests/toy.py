# SPDX-License-Identifier: Apache-2.0
"""A toy data set that the learning stages understand: a dot that moves left, right, up or down as it was told."""

from __future__ import annotations

import numpy as np

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
