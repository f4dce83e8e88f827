# SPDX-License-Identifier: Apache-2.0
"""Both families through pretraining, finetuning, checkpoint and policy, as the small model goes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lapa_core.policy import Policy
from lapa_core.vla import finetune, pretrain
from lapa_core.vla.checkpoint import load_vla
from lapa_core.vla.config import FinetuneConfig, PretrainConfig
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.hf.model import HfVla
from tests.toy import toy_store, write_labels
from tests.vla.tiny_backbones import IMAGE_PX, save


@pytest.mark.slow
@pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl", "paligemma"])
def test_from_a_folder_to_a_policy(family, tmp_path):
    store = toy_store()
    codes = store.episode_ids[store.valid_pairs(0.4)[:, :1]] % 4
    labels = write_labels(tmp_path / "labels", store, codes, gap_s=0.4)
    folder = save(family, tmp_path / "backbone")
    tower = HfVla.start(HfConfig(model=str(folder), image_px=IMAGE_PX), []).vision_parameters()
    common = {
        "data": Path("toy"), "batch_size": 16, "log_every": 1, "save_every": 0, "progress": False,
        "learning_rate": 3e-3, "mean_weight": 0.0,
    }  # fmt: skip
    pretrained = pretrain.train(
        PretrainConfig(
            labels=labels, out=tmp_path / "pretrain", steps=24, unknown_word_share=0.0,
            model=HfConfig(model=str(folder), image_px=IMAGE_PX, max_text=200), **common,
        ),
        store,
    )  # fmt: skip
    losses = [row["loss"] for _, row in pretrained.history]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    shutil.rmtree(folder)  # the checkpoint needs it no more
    finetuned = finetune.train(
        FinetuneConfig(
            init=pretrained.checkpoint, out=tmp_path / "finetune", steps=3, head_steps=1, max_bins=8,
            **common,
        ),
        store,
    )  # fmt: skip
    model = load_vla(finetuned.checkpoint).model
    assert isinstance(model, HfVla)
    for mine, published in zip(model.vision_parameters(), tower, strict=True):
        assert torch.equal(mine, published)
    policy = Policy.load(finetuned.checkpoint)
    step = policy.act(np.zeros((48, 64, 3), np.uint8), "push the red block")
    assert (step.bins < model.need_bins().counts).all()
