# SPDX-License-Identifier: Apache-2.0
"""Named configurations of the policy's stages: `sim` gives useful behaviour on two cores, `debug` runs in seconds.

`data` and other inputs are the folders that the stages before write by default; give others on the command line.
"""

from __future__ import annotations

from pathlib import Path

from lapa_core.vla.config import FinetuneConfig, PretrainConfig, TrunkConfig

_VIDEOS = Path("data/videos_default")
_RECORDED = Path("data/recorded450")

_DEBUG_TRUNK = TrunkConfig(width=8, blocks=1, keypoints=4, text_dim=16, features=32)

VLA_PRETRAIN: dict[str, PretrainConfig] = {
    "sim": PretrainConfig(
        data=_VIDEOS,
        labels=Path("outputs/laq_sim/labels"),
        out=Path("outputs/pretrain_sim"),
        steps=6000,
    ),
    "debug": PretrainConfig(
        data=_VIDEOS,
        labels=Path("outputs/laq_debug/labels"),
        out=Path("outputs/pretrain_debug"),
        model=_DEBUG_TRUNK,
        steps=20,
        batch_size=16,
        max_episodes=8,
    ),
}
"""`lapa vla pretrain <name>`."""

VLA_FINETUNE: dict[str, FinetuneConfig] = {
    "sim": FinetuneConfig(
        data=_RECORDED,
        init=Path("outputs/pretrain_sim/checkpoint"),
        out=Path("outputs/finetune_sim"),
        steps=1200,
        trunk_factor=1.0,
        freeze_stem=False,
        dropout=0.2,
        temperature=1.0,
    ),
    "sim_scratch": FinetuneConfig(
        data=_RECORDED,
        out=Path("outputs/scratch_sim"),
        head_steps=0,
        steps=2000,
        trunk_factor=1.0,
        dropout=0.0,
        temperature=1.0,
    ),
    "sim_ceiling": FinetuneConfig(
        data=_VIDEOS,
        out=Path("outputs/ceiling_sim"),
        head_steps=0,
        steps=4000,
        learning_rate=3e-3,
        trunk_factor=1.0,
        dropout=0.0,
        temperature=1.0,
    ),
    "debug": FinetuneConfig(
        data=_RECORDED,
        init=Path("outputs/pretrain_debug/checkpoint"),
        out=Path("outputs/finetune_debug"),
        head_steps=10,
        steps=20,
        batch_size=16,
    ),
    "debug_scratch": FinetuneConfig(
        data=_RECORDED,
        out=Path("outputs/scratch_debug"),
        model=_DEBUG_TRUNK,
        head_steps=0,
        steps=20,
        batch_size=16,
    ),
    "debug_ceiling": FinetuneConfig(
        data=_VIDEOS,
        out=Path("outputs/ceiling_debug"),
        model=_DEBUG_TRUNK,
        head_steps=0,
        steps=20,
        batch_size=16,
    ),
}
"""`lapa vla finetune <name>`; `*_scratch` starts from nothing, `*_ceiling` is for thousands of labels."""
