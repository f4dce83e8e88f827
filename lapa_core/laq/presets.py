# SPDX-License-Identifier: Apache-2.0
"""Named configurations of latent action models: `sim` gives useful codes on two cores, `debug` runs in seconds."""

from __future__ import annotations

from pathlib import Path

from lapa_core.laq.config import ConvLaqConfig, PatchLaqConfig
from lapa_core.laq.train_config import LaqTrainConfig

_VIDEOS = Path("data/videos_default")

LAQ_TRAIN: dict[str, LaqTrainConfig] = {
    "sim": LaqTrainConfig(data=_VIDEOS, out=Path("outputs/laq_sim")),
    "sim_paper": LaqTrainConfig(
        data=_VIDEOS,
        out=Path("outputs/laq_sim_paper"),
        model=PatchLaqConfig(
            image_px=32,
            patch_px=4,
            dim=64,
            heads=2,
            spatial_depth=2,
            temporal_depth=2,
            decoder_depth=2,
        ),
        shift_px=0,
        steps=2000,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "debug": LaqTrainConfig(
        data=_VIDEOS,
        out=Path("outputs/laq_debug"),
        model=ConvLaqConfig(width=8, keypoints=4, codes=8),
        steps=20,
        batch_size=16,
        max_episodes=8,
    ),
    "debug_paper": LaqTrainConfig(
        data=_VIDEOS,
        out=Path("outputs/laq_debug_paper"),
        model=PatchLaqConfig(
            image_px=32,
            patch_px=4,
            dim=32,
            heads=2,
            spatial_depth=1,
            temporal_depth=1,
            decoder_depth=1,
            code_dim=8,
        ),
        steps=20,
        batch_size=16,
        max_episodes=8,
    ),
}
"""`lapa laq train <name>`; `*_paper` is the paper's layout."""
