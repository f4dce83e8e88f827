# SPDX-License-Identifier: Apache-2.0
"""What `test_together.py` runs in every process of torchrun: `together.py FOLDER`; not a test itself.

One launch does all cases, because starting processes takes longer than the steps. Each case leaves its run directory.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lapa_core.train.parallel import Parallel, leave, whole
from lapa_core.vla import finetune, pretrain
from lapa_core.vla.adapters import merged
from lapa_core.vla.base import VlaModel, model_class
from lapa_core.vla.config import FinetuneConfig, LoopConfig, PretrainConfig, TrunkConfig
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.lwm.config import LWM_DEBUG
from lapa_core.vla.objective import PretrainObjective
from tests.torchrun import until_half
from tests.toy import toy_store, write_labels

SMALL = TrunkConfig(image_px=16, width=8, blocks=1, keypoints=4, text_dim=8, features=16)
LOOP: dict[str, Any] = {
    "data": Path("toy"), "steps": 4, "batch_size": 8, "save_every": 2, "log_every": 1, "progress": False,
    "learning_rate": 1e-3,
}  # fmt: skip
LWM: dict[str, Any] = {**LOOP, "model": LWM_DEBUG, "unknown_word_share": 0.0, "labels": Path()}
QWEN = HfConfig(model="toy-qwen2_5_vl", image_px=16, max_text=200, freeze_vision=False)
CASES: dict[str, LoopConfig] = {
    "film_ddp": PretrainConfig(**LOOP, model=SMALL, labels=Path(), unknown_word_share=0.2, history=1),
    "lwm_ddp": PretrainConfig(**LWM, micro_batch=2, length_window=2),
    "lwm_fsdp2": PretrainConfig(**LWM, parallel="fsdp2", recompute=True, micro_batch=2),
    "lwm_lora": PretrainConfig(**LWM, parallel="fsdp2", lora_rank=4, history=1),
    "hf_fsdp2": PretrainConfig(
        **{**LWM, "model": QWEN}, parallel="fsdp2", recompute=True, history=2
    ),
    "finetune_ddp": FinetuneConfig(**LOOP, model=SMALL, head_steps=2, dropout=0.0, max_bins=8),
    "finetune_fsdp2": FinetuneConfig(
        **LOOP, model=LWM_DEBUG, parallel="fsdp2", head_steps=2, dropout=0.0, max_bins=8
    ),
}  # fmt: skip
"""Name -> recipe; also trained in one process by the test."""

_BF16 = {"parallel": "fsdp2", "precision": "bf16", "recompute": True, "micro_batch": 2}
NEAR: dict[str, tuple[str, LoopConfig]] = {
    "bf16": ("lwm_fsdp2", PretrainConfig(**{**LWM, **_BF16})),
    "bf16_lora": ("lwm_lora", PretrainConfig(**{**LWM, **_BF16, "lora_rank": 4}, history=1)),
}
"""Name -> the case of `CASES` that computes nearly the same in float32, and the recipe."""


def write_toy_labels(folder: Path) -> Path:
    """Write perfect codes: the direction of each episode."""
    store = toy_store(image_px=16)
    pairs = store.valid_pairs(0.4)
    return write_labels(folder, store, store.episode_ids[pairs] % 4, gap_s=0.4)


def run_case(recipe: LoopConfig, labels: Path, out: Path) -> Path:
    """Train one recipe and return its checkpoint."""
    store = toy_store(image_px=16)
    if isinstance(recipe, PretrainConfig):
        return pretrain.train(replace(recipe, labels=labels, out=out), store).checkpoint
    assert isinstance(recipe, FinetuneConfig)
    return finetune.train(replace(recipe, out=out), store).checkpoint


def run_half(recipe: LoopConfig, labels: Path, out: Path) -> None:
    """Train until the state of step 2 is saved."""
    until_half(lambda: run_case(recipe, labels, out))


def fresh_lwm() -> VlaModel:
    """Return the same fresh model in every process, its weights in bfloat16 as large ones are stored."""
    torch.manual_seed(0)
    model = model_class("lwm").start(LWM_DEBUG, toy_store().instructions)
    model.give_latent_head(2, 4)
    return model.to(torch.bfloat16)


def export_untrained(out: Path) -> None:
    """Divide a model, put it together again and write it."""
    parallel = Parallel("cpu", "fsdp2")
    model = fresh_lwm()
    objective = PretrainObjective(model, torch.eye(4), mean_weight=0.0)
    parallel.wrap(objective, units=model.blocks(), bf16=True)
    weights = {name: tensor.clone() for name, tensor in merged(model, whole)}
    if parallel.leads:
        save_file(weights, out)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    labels = folder / "labels"
    with Parallel("cpu").leader_first():
        if not labels.exists():
            write_toy_labels(labels)
    for case, recipe in CASES.items():
        run_case(recipe, labels, folder / case)
    for case, (_, recipe) in NEAR.items():
        run_case(recipe, labels, folder / case)
    for case in ("lwm_ddp", "lwm_fsdp2", "lwm_lora"):
        run_half(CASES[case], labels, folder / f"{case}_half")
        run_half(CASES[case], labels, folder / f"{case}_resumed")
        run_case(CASES[case], labels, folder / f"{case}_resumed")
    export_untrained(folder / "untrained.safetensors")
    leave()
