# SPDX-License-Identifier: Apache-2.0
"""The action head: learns from few labels, is saved with its units, and without labels no action is in reach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.laq.action_head import (
    ActionHead,
    head_input,
    latent_width,
    load_action_head,
    predict_actions,
)
from lapa_core.laq.checkpoint import build_laq, load_laq
from lapa_core.laq.config import ConvLaqConfig
from lapa_core.laq.train import train
from lapa_core.laq.train_config import LaqTrainConfig
from lapa_core.laq.train_data import LaqData
from lapa_core.train.augment import to_float
from lapa_core.train.pairs import actions_between
from tests.toy import TOY_PATCH, toy_store

CONV = ConvLaqConfig(width=8, codes=8)
RECIPE = LaqTrainConfig(
    data=Path("toy"), model=CONV, gap_s=0.4, steps=4, batch_size=8, labelled=Path("toy"),
    labelled_batch_size=8, save_every=0, log_every=1, progress=False,
)  # fmt: skip


@pytest.mark.slow
def test_the_head_reads_actions_of_episodes_that_it_never_saw(tmp_path):
    recipe = replace(RECIPE, out=tmp_path, steps=50, learning_rate=0.02, action_weight=0.5)
    recipe = replace(recipe, batch_size=16, labelled_batch_size=16, labelled_episodes=8)
    trained = train(recipe, toy_store(), toy_store(seed=1))
    model, facts = load_laq(trained.checkpoint)
    head, config = load_action_head(tmp_path / "action_head", laq_sha256=facts["weights_sha256"])
    assert config["gap_s"] == 0.4
    unseen = toy_store(episodes=12, seed=2)
    pairs = unseen.valid_pairs(0.4)
    true = actions_between(unseen.actions, pairs)[:, :2]
    read = predict_actions(model, head, unseen.frames[pairs[:, 0]], unseen.frames[pairs[:, 1]])
    assert np.square(read[:, :2] - true).mean() < 0.5 * true.var()
    assert np.abs(read[:, 2:]).max() == 0.0, "dimensions that never move"


def test_statistics_are_those_of_all_labelled_pairs(tmp_path):
    labelled = toy_store(episodes=8, seed=1)
    train(replace(RECIPE, out=tmp_path, labelled_episodes=4), toy_store(), labelled)
    head, _ = load_action_head(tmp_path / "action_head")
    few = labelled.subset(range(4))
    actions = actions_between(few.actions, few.valid_pairs(0.4))
    assert head.mean_A.numpy() == pytest.approx(actions.mean(axis=0), abs=1e-6)
    assert head.std_A.numpy()[:2] == pytest.approx(actions.std(axis=0)[:2], rel=1e-4)
    assert head.std_A.numpy()[2:].tolist() == [1.0] * 5


@pytest.mark.parametrize("quantiser", ["nsvq", "vq_ema", "fsq", "none"])
def test_the_head_reads_codes_where_there_are_codes_and_reaches_the_encoder(quantiser):
    torch.manual_seed(0)
    model = build_laq(replace(TOY_PATCH, quantiser=quantiser)).train()
    frames = to_float(torch.from_numpy(toy_store().frames[:6]))
    latent = head_input(model, frames[:3], frames[3:])
    codes, vectors = model.encode_pair(frames[:3], frames[3:])
    expected = vectors if quantiser == "none" else model.quantiser.vectors(codes)
    torch.testing.assert_close(latent, expected)
    latent.sum().backward()
    assert model.narrow.weight.grad.abs().sum() > 0
    assert latent_width(model) == latent[0].numel()


def test_labels_change_what_is_learned(tmp_path):
    store, labelled = toy_store(), toy_store(seed=1)
    history = train(replace(RECIPE, out=tmp_path / "with"), store, labelled).history
    assert {"loss", "reconstruction", "action"} <= set(history[1][1])
    recipe = replace(RECIPE, labelled=None, out=tmp_path / "without")
    without = train(recipe, store).history
    assert "action" not in without[1][1]
    assert without[-2][1]["loss"] != history[-2][1]["reconstruction"]
    assert not (tmp_path / "without" / "action_head").exists()


def test_without_labelled_no_action_is_in_reach():
    data = LaqData.load(replace(RECIPE, labelled=None), toy_store(), None)
    assert data.store.actions is None
    assert data.labelled is None
    assert data.labelled_pairs(rank=0, world=1) is None
    assert data.pairs(rank=0, world=1, first_step=0).batch(0).actions_BA is None
    with pytest.raises(ContractError, match=r"config\.labelled"):
        LaqData.load(replace(RECIPE, labelled=None), toy_store(), toy_store())
    silent = replace(toy_store(), actions=None)
    with pytest.raises(DataError, match="has no actions"):
        LaqData.load(RECIPE, toy_store(), silent)


def test_the_head_of_another_model_is_refused(tmp_path):
    train(replace(RECIPE, out=tmp_path), toy_store(), toy_store())
    with pytest.raises(CheckpointError, match="beside the model"):
        load_action_head(tmp_path / "action_head", laq_sha256="0" * 64)
    with pytest.raises(CheckpointError, match="laq_action_head"):
        load_action_head(tmp_path / "checkpoint")


def test_a_head_gives_actions_in_the_labels_own_units():
    head = ActionHead(2, torch.tensor([1.0, 5.0]), torch.tensor([2.0, 0.0]))
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(2))
        head.linear.bias.zero_()
    latent = torch.tensor([[[1.0, -1.0]]])
    assert head.physical(latent).tolist() == [[3.0, 4.0]]
    assert head.loss(latent, torch.tensor([[3.0, 4.0]])).item() == 0.0
