# SPDX-License-Identifier: Apache-2.0
"""The interface and its checkpoints: what every family shares, tried on the small model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lapa_core.actions.bins import ActionBins
from lapa_core.checkpoint import load_config
from lapa_core.errors import CheckpointError, ContractError
from lapa_core.policy import DEFAULT_CHECKPOINT, Gripper, Policy
from lapa_core.presets import VLA_FINETUNE, VLA_PRETRAIN
from lapa_core.vla.base import FAMILIES, make_model, model_class
from lapa_core.vla.checkpoint import PRETRAINED, describe, load_vla, restore, save_vla
from lapa_core.vla.config import FinetuneConfig, TrunkConfig
from lapa_core.vla.decode.choose import greedy
from lapa_core.vla.words import Vocabulary

TRUNK = TrunkConfig(image_px=16, width=8, blocks=1, keypoints=4, text_dim=8, features=16)
WORDS = Vocabulary.fit(["push the red block left", "go"])


@pytest.fixture
def bins():
    rng = np.random.default_rng(0)
    actions = np.zeros((200, 7))
    actions[:, :2] = rng.normal(0, 0.02, (200, 2))
    return ActionBins.fit(actions, 16)


@pytest.fixture
def model(bins):
    torch.manual_seed(0)
    return make_model(TRUNK, WORDS, latent=(2, 4), bins=bins).eval()


def inputs_of(model, count=3):
    return model.prepare(torch.rand(count, 3, 16, 16), ["push the red block left"] * count)


@pytest.mark.slow  # imports transformers and diffusers
def test_every_family_says_what_it_is():
    for kind in FAMILIES:
        found = model_class(kind)
        assert not found.__abstractmethods__, kind
        assert found.text_type is not None
    with pytest.raises(CheckpointError, match="known are"):
        model_class("gpt")


@pytest.mark.parametrize("stages", [VLA_PRETRAIN, VLA_FINETUNE])
def test_every_preset_describes_a_model_that_is_restored_equal(stages):
    for name, stage in stages.items():
        through_json = json.loads(json.dumps(describe(stage.model)))
        assert restore(through_json) == stage.model, name
    with pytest.raises(CheckpointError, match="no kind"):
        restore({"kind": "gpt"})
    with pytest.raises(CheckpointError, match="unexpected keyword"):
        restore({"kind": "film", "depth": 3})


def test_what_is_read_once_gives_what_is_read_twice(model):
    inputs = inputs_of(model)
    read = model.read(inputs)
    none = torch.empty(0, dtype=torch.int64)
    assert torch.equal(model.latent_logits(inputs, none), model.latent_logits(read, none))
    assert torch.equal(model.action_logits(inputs, none), model.action_logits(read, none))


def test_decoding_takes_the_likeliest_and_never_a_bin_that_is_not_there(model, bins):
    inputs = inputs_of(model, 50)
    none = torch.empty(0, dtype=torch.int64)
    codes = model.decode(inputs, "latent", greedy)
    assert torch.equal(codes, model.latent_logits(inputs, none).argmax(dim=-1))
    chosen = model.decode(inputs, "action", greedy).numpy()
    assert (chosen < bins.counts).all()


def test_a_checkpoint_rebuilds_model_and_words(tmp_path, model):
    loaded = load_vla(save_vla(tmp_path / "c", PRETRAINED, model, bins=model.bins.to_dict()))
    inputs = inputs_of(model)
    assert torch.equal(
        loaded.model.decode(inputs, "latent", greedy), model.decode(inputs, "latent", greedy)
    )
    assert loaded.model.text.words == WORDS.words
    assert loaded.config["decoder"] == "head"


def test_a_checkpoint_of_before_the_interface_is_refused_with_the_reason(tmp_path, model):
    path = save_vla(tmp_path / "c", PRETRAINED, model, bins=model.bins.to_dict())
    config = load_config(path)
    del config["model"]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="before policy models had a kind"):
        load_vla(path)


def test_a_model_without_a_head_says_how_to_get_one(bins):
    model = make_model(TRUNK, WORDS)
    none = torch.empty(0, dtype=torch.int64)
    with pytest.raises(CheckpointError, match="lapa vla pretrain"):
        model.latent_logits(inputs_of(model), none)
    with pytest.raises(CheckpointError, match="lapa vla finetune"):
        model.decode(inputs_of(model), "action", greedy)
    with pytest.raises(CheckpointError, match="--continuous"):
        model.chunk_actions(inputs_of(model))
    with pytest.raises(ContractError, match="one image"):
        model.prepare(torch.rand(1, 3, 16, 16), ["go"], {"state": torch.zeros(1, 7)})


def test_the_gripper_switches_only_beyond_its_band():
    gripper = Gripper(0.2)
    openings = [0.4, 0.6, 0.75, 0.45, 0.31, 0.29, 0.6]
    assert [gripper(opening) for opening in openings] == [0, 0, 1, 1, 1, 0, 0]
    gripper.reset()
    assert gripper(0.6) == 1.0
    assert [Gripper(0.0)(opening) for opening in openings] == openings


def test_the_shipped_policy_decides_as_it_did():
    """Recorded when it was shipped: the same bins and codes on the same picture."""
    policy = Policy.load(DEFAULT_CHECKPOINT, temperature=0.0)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    step = policy.act(picture, "push the red block left")
    assert step.bins.tolist() == [14, 28, 0, 0, 0, 0, 0]
    assert step.latent == (19,)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chunk": 4}, "--continuous"),
        ({"latent_weight": 0.5}, "--labels"),
        ({"gripper_hysteresis": 0.5}, "below 0.5"),
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": float("nan")}, "positive number"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, reason):
    with pytest.raises(ContractError, match=reason):
        replace(VLA_FINETUNE["debug"], **changes)


def test_the_default_finetuning_has_every_option_off():
    config = FinetuneConfig(data=Path("toy"))
    assert (config.continuous, config.chunk, config.latent_weight) == (False, 1, 0.0)
    assert (config.gripper_hysteresis, config.lora_rank, config.base) == (0.0, 0, "full")
