# SPDX-License-Identifier: Apache-2.0
"""Named configurations of the policy's stages: `sim` gives useful behaviour on two cores, `debug` runs in seconds.

`lapa_7b` is the paper's model and recipe (facts/lapa.md 2.4, 2.5) for eight GPUs, `lapa_7b_lora` is for one card of
24 GB, `hf` is a modern backbone. `*_debug` train the same code at toy widths. `data` and other inputs are the folders
that the stages before write by default; give others on the command line.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lapa_core.vla.config import FinetuneConfig, PretrainConfig, TrunkConfig
from lapa_core.vla.hf.config import HF_PRESETS, HfConfig
from lapa_core.vla.lwm.config import LWM_PRESETS

_VIDEOS = Path("data/videos_default")
_RECORDED = Path("data/recorded450")

_DEBUG_TRUNK = TrunkConfig(width=8, blocks=1, keypoints=4, text_dim=16, features=32)
_LWM_DEBUG = replace(LWM_PRESETS["lwm_debug"], max_text=160)
_HF_DEBUG = HfConfig(model="toy-smolvlm", image_px=32, max_text=256)
_PAPER: dict[str, Any] = {
    "schedule": "constant", "learning_rate": 2e-5, "beta2": 0.95, "weight_decay": 0.0, "mean_weight": 0.0,
    "shift_px": 0, "light": 0.0, "precision": "bf16", "recompute": True, "log_every": 10,
}  # fmt: skip
"""The release's optimiser (facts/lapa.md 2.5): AdamW at one rate for all weights, activations recomputed."""
_PAPER_HEAD: dict[str, Any] = {
    "max_bins": 256, "smoothing_bins": 0.0, "head_steps": 0, "trunk_factor": 1.0, "dropout": 0.0,
}  # fmt: skip
"""The paper's finetuning: plain cross-entropy over 256 quantile bins, all weights from the first step."""
_TOY: dict[str, Any] = {
    "schedule": "constant", "learning_rate": 1e-3, "mean_weight": 0.0, "steps": 20, "batch_size": 8, "log_every": 5,
}  # fmt: skip
_CARD: dict[str, Any] = {
    **_PAPER, "lora_rank": 32, "learning_rate": 2e-4, "base": "nf4", "micro_batch": 2, "length_window": 16,
}  # fmt: skip
"""What a card of 24 GB trains: adapters beside a 4-bit base, at the usual rate of adapters."""

_CEILING: dict[str, Any] = {
    "head_steps": 0, "steps": 4000, "learning_rate": 3e-3, "trunk_factor": 1.0, "dropout": 0.0, "temperature": 1.0,
}  # fmt: skip
"""The small trunk on thousands of labels, true ones or an inverse dynamics model's."""
_DEBUG_FRESH: dict[str, Any] = {
    "model": _DEBUG_TRUNK,
    "head_steps": 0,
    "steps": 20,
    "batch_size": 16,
}
"""A tiny trunk from nothing, in seconds."""

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
    "lapa_7b": PretrainConfig(
        **_PAPER,
        data=Path("data/openx"),
        labels=Path("outputs/laq_paper/labels"),
        init=Path("outputs/lwm_chat"),
        out=Path("outputs/pretrain_lapa_7b"),
        model=LWM_PRESETS["lapa_7b"],
        steps=70_000,
        batch_size=256,
        micro_batch=8,
        parallel="fsdp2",
        unknown_word_share=0.0,
        save_every=1000,
    ),
    "hf": PretrainConfig(
        **_PAPER,
        data=_VIDEOS,
        labels=Path("outputs/laq_sim/labels"),
        out=Path("outputs/pretrain_hf"),
        model=HF_PRESETS["smolvlm2_500m"],
        steps=10_000,
        batch_size=128,
        micro_batch=16,
        unknown_word_share=0.0,
    ),
    "lwm_debug": PretrainConfig(
        **_TOY,
        data=_VIDEOS,
        labels=Path("outputs/laq_debug/labels"),
        out=Path("outputs/pretrain_lwm_debug"),
        model=_LWM_DEBUG,
        unknown_word_share=0.0,
        max_episodes=8,
    ),
    "hf_debug": PretrainConfig(
        **_TOY,
        data=_VIDEOS,
        labels=Path("outputs/laq_debug/labels"),
        out=Path("outputs/pretrain_hf_debug"),
        model=_HF_DEBUG,
        unknown_word_share=0.0,
        max_episodes=8,
    ),
}
"""`lapa vla pretrain <name>`."""

VLA_PRETRAIN_NOTES = {
    "sim": "the small trunk on the simulator's videos, 64 px; minutes on two cores",
    "debug": "the same in seconds",
    "lapa_7b": "LAPA-7B by the paper's recipe on eight GPUs of 80 GB (docs/vla.md)",
    "hf": "a backbone of transformers (SmolVLM2 500M) on one GPU",
    "lwm_debug": "the code of lapa_7b at toy widths, in seconds",
    "hf_debug": "the code of hf at toy widths, in seconds",
}
"""One line for each."""

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
    "sim_ceiling": FinetuneConfig(**_CEILING, data=_VIDEOS, out=Path("outputs/ceiling_sim")),
    "sim_vpt": FinetuneConfig(
        **_CEILING,
        data=_VIDEOS,
        idm=Path("outputs/idm_sim/checkpoint"),
        out=Path("outputs/vpt_sim"),
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
        **_DEBUG_FRESH,
        data=_RECORDED,
        out=Path("outputs/scratch_debug"),
    ),
    "debug_ceiling": FinetuneConfig(
        **_DEBUG_FRESH,
        data=_VIDEOS,
        out=Path("outputs/ceiling_debug"),
    ),
    "debug_vpt": FinetuneConfig(
        **_DEBUG_FRESH,
        data=_VIDEOS,
        idm=Path("outputs/idm_debug/checkpoint"),
        out=Path("outputs/vpt_debug"),
    ),
    "lapa_7b": FinetuneConfig(
        **{**_PAPER, **_PAPER_HEAD, "shift_px": 6, "light": 0.2},
        data=_RECORDED,
        init=Path("outputs/pretrain_lapa_7b/checkpoint"),
        out=Path("outputs/finetune_lapa_7b"),
        model=LWM_PRESETS["lapa_7b"],
        steps=2000,
        batch_size=128,
        micro_batch=8,
        parallel="fsdp2",
    ),
    "lapa_7b_lora": FinetuneConfig(
        **{**_CARD, **_PAPER_HEAD, "shift_px": 6, "light": 0.2},
        data=_RECORDED,
        init=Path("outputs/lapa_7b_openx"),
        out=Path("outputs/finetune_lapa_7b_lora"),
        model=LWM_PRESETS["lapa_7b"],
        steps=2000,
        batch_size=128,
    ),
    "hf": FinetuneConfig(
        **{**_PAPER, **_PAPER_HEAD, "shift_px": 6, "light": 0.2},
        data=_RECORDED,
        init=Path("outputs/pretrain_hf/checkpoint"),
        out=Path("outputs/finetune_hf"),
        model=HF_PRESETS["smolvlm2_500m"],
        steps=2000,
        batch_size=128,
        micro_batch=16,
    ),
    "lwm_debug": FinetuneConfig(
        **{**_TOY, **_PAPER_HEAD, "max_bins": 32},
        data=_RECORDED,
        init=Path("outputs/pretrain_lwm_debug/checkpoint"),
        out=Path("outputs/finetune_lwm_debug"),
        model=_LWM_DEBUG,
        episodes=8,
    ),
    "hf_debug": FinetuneConfig(
        **{**_TOY, **_PAPER_HEAD, "max_bins": 32},
        data=_RECORDED,
        init=Path("outputs/pretrain_hf_debug/checkpoint"),
        out=Path("outputs/finetune_hf_debug"),
        model=_HF_DEBUG,
        episodes=8,
    ),
}
"""`lapa vla finetune <name>`; `*_scratch` starts from nothing, `*_ceiling` is for thousands of labels, `*_vpt` for
videos without any."""

VLA_FINETUNE_NOTES = {
    "sim": "the small trunk from its latent pretraining, on recorded episodes",
    "sim_scratch": "the same without latent pretraining",
    "sim_ceiling": "the small trunk on the actions of thousands of simulated videos",
    "sim_vpt": "the same on the actions that an inverse dynamics model sees in them",
    "debug": "sim in seconds",
    "debug_scratch": "sim_scratch in seconds",
    "debug_ceiling": "sim_ceiling in seconds",
    "debug_vpt": "sim_vpt in seconds",
    "lapa_7b": "LAPA-7B, all weights, by the paper's recipe on eight GPUs of 80 GB (docs/vla.md)",
    "lapa_7b_lora": "LAPA-7B, adapters beside a 4-bit base, on one card of 24 GB",
    "hf": "a backbone of transformers (SmolVLM2 500M), all weights, on one GPU",
    "lwm_debug": "the code of lapa_7b at toy widths, in seconds",
    "hf_debug": "the code of hf at toy widths, in seconds",
}
"""One line for each."""
