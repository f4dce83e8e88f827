# SPDX-License-Identifier: Apache-2.0
"""Frozen DINOv2 features as the target, with a tiny randomly initialised tower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lapa_core.errors import ContractError, DataError, LapaError
from lapa_core.laq.checkpoint import load_laq, save_laq
from lapa_core.laq.config import PatchLaqConfig
from lapa_core.laq.model import PatchLaq
from lapa_core.laq.train import train
from lapa_core.laq.train_config import LaqTrainConfig
from lapa_core.train.augment import images_of
from lapa_core.train.pairs import StorePairs
from tests.toy import TOY_PATCH, toy_store

pytestmark = pytest.mark.slow  # importing transformers' models takes seconds


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> PatchLaqConfig:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dinov2")
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=56, patch_size=14)).save_pretrained(folder)
    return replace(TOY_PATCH, target="dinov2", dinov2=str(folder), dinov2_dim=12)


def test_the_target_is_the_towers_features_of_normalised_frames(config):
    from transformers import Dinov2Model

    model = PatchLaq(config)
    x = torch.rand(2, 3, 32, 32)
    large = F.interpolate(x, (224, 224), mode="bicubic", antialias=True)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    tower = Dinov2Model.from_pretrained(config.dinov2).eval()
    with torch.no_grad():
        expected = tower((large - mean) / std).last_hidden_state[:, 1:]
    target = model.target(x)
    assert target.shape == (2, 12, 16, 16)
    torch.testing.assert_close(target.flatten(2).transpose(1, 2), expected)
    assert model.predict(x, x, x).shape == target.shape


def test_it_trains_and_the_tower_is_in_no_list(config, tmp_path):
    torch.manual_seed(0)
    model = PatchLaq(config)
    x0, x1 = torch.rand(2, 4, 3, 32, 32)
    names = set(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(5):
        model.set_step(seed=0, step=step)
        loss = F.mse_loss(model.predict(x0, x1, x0), model.target(x1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert set(model.state_dict()) == names == set(PatchLaq(config).state_dict())
    tower = {id(parameter) for parameter in model.features._load().parameters()}
    assert tower.isdisjoint(id(parameter) for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.features._load().parameters())
    _, facts = load_laq(save_laq(tmp_path / "checkpoint", model, config))
    assert facts["model"]["dinov2"] == config.dinov2
    assert facts["model"]["dinov2_revision"] == "main"


def test_the_loop_measures_a_still_picture_in_features_too(config, tmp_path):
    recipe = LaqTrainConfig(
        data=Path("toy"), model=config, gap_s=0.4, steps=1, batch_size=8, save_every=0, progress=False, out=tmp_path
    )  # fmt: skip
    ((_, found), *_) = train(recipe, toy_store()).history
    batch = StorePairs(toy_store(), batch_size=8, gap_s=0.4).batch(0)
    first, later = map(PatchLaq(config).target, images_of(batch, torch.device("cpu")))
    assert found["copy_loss"] == pytest.approx(F.mse_loss(first, later).item(), rel=1e-4)


def test_it_encodes_without_the_tower_but_cannot_render(config):
    model = PatchLaq(replace(config, dinov2="no/such-folder-or-model")).eval()
    x = torch.rand(2, 3, 32, 32)
    codes, _ = model.encode_pair(x, x)
    assert not model.paints
    with pytest.raises(LapaError, match="target='pixels'"):
        model.render(x, codes)


def test_a_wrong_tower_is_refused(config, tmp_path):
    with pytest.raises(ContractError, match="set dinov2_dim=12"):
        PatchLaq(replace(config, dinov2_dim=768)).target(torch.rand(1, 3, 32, 32))
    missing = replace(config, dinov2=str(tmp_path / "missing"))
    with pytest.raises(DataError, match="cannot be loaded"):
        PatchLaq(missing).target(torch.rand(1, 3, 32, 32))
