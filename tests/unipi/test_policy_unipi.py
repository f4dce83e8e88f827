# SPDX-License-Identifier: Apache-2.0
"""A policy that plans: joined from two checkpoints, two actions of a plan executed, nothing of it kept too long."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from lapa_core.actions.caps import cut_to_caps
from lapa_core.checkpoint import load_config
from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.idm.checkpoint import load_idm, save_idm
from lapa_core.idm.config import IdmModelConfig
from lapa_core.idm.model import InverseDynamics
from lapa_core.policy import Policy
from lapa_core.serve.config import ServeConfig
from lapa_core.serve.run import main as serve
from lapa_core.train.augment import to_float
from lapa_core.unipi.checkpoint import load_video, save_video
from lapa_core.unipi.config import UNIPI_TRAIN, UnipiPolicyConfig
from lapa_core.unipi.engine import load_planner
from lapa_core.unipi.join import join
from lapa_core.unipi.model import VideoDiffusion
from lapa_core.vla.words import Vocabulary

TEXTS = ["go left", "go right"]


def video(folder, **facts):
    torch.manual_seed(0)
    model = VideoDiffusion(UNIPI_TRAIN["debug"].model, Vocabulary.fit(TEXTS), change_std=0.2)
    return save_video(folder, model, **{"period_s": 0.2, "sampling_steps": 2, **facts})


def inverse(folder, *, image_px=32, gap_s=0.2, spread=0.01):
    """An untrained model whose actions are about as long as the spread."""
    torch.manual_seed(0)
    sizes = IdmModelConfig(image_px=image_px, width=8, keypoints=4, hidden=16)
    model = InverseDynamics(sizes, torch.zeros(7), torch.full((7,), spread))
    torch.nn.init.normal_(model.head.linear.weight)
    return save_idm(folder, model, sizes, gap_s=gap_s, contract="wx250s_sim")


@pytest.fixture
def config(tmp_path):
    return UnipiPolicyConfig(
        video=video(tmp_path / "video"), idm=inverse(tmp_path / "idm"), out=tmp_path / "policy"
    )


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


def test_actions_are_those_between_planned_frames(config, frames):
    folder = join(config)
    engine = load_planner(folder, seed=5)
    one, two = (engine.step(frames[0], TEXTS[0]) for _ in range(2))
    model, idm = load_video(config.video).model, load_idm(config.idm).model
    first = to_float(torch.from_numpy(frames[:1]))
    noise = model.noise(1, torch.Generator().manual_seed(5))
    plan = model.plan(first, model.encode(TEXTS[:1]), noise, steps=2)[0]
    seen = [idm(first, plan[:1]), idm(plan[:1], plan[1:2])]
    assert np.allclose(one.action_7[:6], seen[0][0, :6].detach(), atol=1e-6)
    assert np.allclose(two.action_7[:6], seen[1][0, :6].detach(), atol=1e-6)
    assert one.chunk_H7.shape == (4, 7)
    assert np.array_equal(one.chunk_H7[1:], two.chunk_H7)
    assert one.latent is None
    assert one.bins_7.shape == (7,)


def test_two_actions_of_a_plan_are_executed_before_the_camera_counts_again(config, frames):
    policy = Policy.load(join(config), temperature=0.0)
    same = [policy.act(frame, TEXTS[0]).delta.to_array() for frame in frames[:4]]
    policy.reset()
    other = [
        policy.act(frame, TEXTS[0]).delta.to_array() for frame in (frames[0], frames[7], frames[6])
    ]
    assert np.array_equal(same[0], other[0])
    assert np.array_equal(same[1], other[1]), "the second action is the plan's, whatever is seen"
    assert not np.array_equal(same[2], other[2]), "the third is of a plan from what is seen"


def test_every_action_is_planned_anew_where_that_is_asked_for(config, frames):
    policy = Policy.load(join(replace(config, replan_every=1)), temperature=0.0)
    one = [policy.act(frame, TEXTS[0]).delta.to_array() for frame in frames[:2]]
    policy.reset()
    assert np.array_equal(one[1], policy.act(frames[1], TEXTS[0]).delta.to_array())


@pytest.mark.parametrize("how", ["reset", "other words"])
def test_a_plan_is_dropped(config, frames, how):
    """By a reset, and by another instruction: the next action begins at the frame that is seen."""
    policy = Policy.load(join(config), temperature=0.0)
    text = TEXTS[1] if how == "other words" else TEXTS[0]
    alone = policy.act(frames[1], text).delta.to_array()
    policy.reset()
    policy.act(frames[0], TEXTS[0])
    if how == "reset":
        policy.reset()
    assert np.array_equal(policy.act(frames[1], text).delta.to_array(), alone)


def test_plans_are_drawn_from_the_seed(config, frames):
    folder = join(config)
    drawn = {
        seed: [
            policy.act(frames[0], TEXTS[0]).delta.to_array().tolist()
            for policy in [Policy.load(folder, seed=seed)] * 4
        ]
        for seed in (1, 1, 2)
    }
    again = Policy.load(folder, seed=1)
    assert [again.act(frames[0], TEXTS[0]).delta.to_array().tolist() for _ in range(4)] == drawn[1]
    assert drawn[1] != drawn[2]
    assert drawn[1][0] != drawn[1][2], "two plans of one place differ"


def test_commands_stay_inside_the_caps(tmp_path, config, frames):
    wild = replace(config, idm=inverse(tmp_path / "wild", spread=1000.0))
    facts = load_config(join(wild))
    policy = Policy.load(tmp_path / "policy" / "checkpoint")
    for frame in frames:
        delta = policy.act(frame, TEXTS[0]).delta
        assert np.linalg.norm(delta.translation_m) == pytest.approx(facts["max_translation_m"])
        assert np.linalg.norm(delta.rotation_rad) == pytest.approx(facts["max_rotation_rad"])


def test_what_is_too_long_keeps_its_direction():
    actions = np.array([[0.3, 0, 0.4, 0, 0, 0.1, 1.5], [0.01, 0, 0, 0, 2.0, 0, 0.5]])
    cut = cut_to_caps(actions, max_translation_m=0.05, max_rotation_rad=0.25)
    expected = [[0.03, 0, 0.04, 0, 0, 0.1, 1.0], [0.01, 0, 0, 0, 0.25, 0, 0.5]]
    assert np.allclose(cut, expected)
    assert actions[0, 0] == 0.3, "what was given is left as it was"


def test_models_that_do_not_fit_each_other_are_refused(tmp_path, config):
    cases = {
        "frames of 16 px, .* plans frames of 32 px": {"idm": inverse(tmp_path / "small", image_px=16)},
        "idm_slow is for frames 0.6 s apart": {"idm": inverse(tmp_path / "idm_slow", gap_s=0.6)},
        "video_slow is for frames 0.6 s apart": {"video": video(tmp_path / "video_slow", period_s=0.6)},
        "replan_every is 5, but .* plans 4": {"replan_every": 5},
        "sampling_steps is 51": {"sampling_steps": 51},
        "is a checkpoint of kind 'unipi_video'; 'idm' is needed": {"idm": config.video},
        "is a checkpoint of kind 'idm'; 'unipi_video' is needed": {"video": config.idm},
    }  # fmt: skip
    for told, changed in cases.items():
        with pytest.raises(CheckpointError, match=told):
            join(replace(config, **changed))
        assert not (config.out / "checkpoint").exists()
    with pytest.raises(ContractError, match="replan_every is 0"):
        replace(config, replan_every=0)


def test_a_policy_of_one_folder_needs_neither_model_again(tmp_path, config, frames):
    folder = join(config)
    shutil.rmtree(config.video)
    shutil.rmtree(config.idm)
    moved = shutil.move(folder, tmp_path / "moved")
    Policy.load(moved).act(frames[0], TEXTS[0])
    shutil.rmtree(tmp_path / "moved" / "idm")
    with pytest.raises(CheckpointError, match="idm is no checkpoint"):
        Policy.load(moved)


def test_settings_that_it_has_not_are_refused(config):
    folder = join(config)
    with pytest.raises(ContractError, match=r"\['top_k', 'latents'\] cannot be chosen here"):
        Policy.load(folder, top_k=5, latents=True)
    with pytest.raises(ContractError, match="temperature is -1"):
        Policy.load(folder, temperature=-1)
    with pytest.raises(DataError, match="this policy takes uint8"):
        load_planner(folder).step(np.zeros((16, 16, 3), np.uint8), "go")


def test_a_plan_of_one_robot_is_not_served_to_many(config):
    with pytest.raises(ContractError, match="would mix their plans"):
        serve(ServeConfig(checkpoint=join(config), port=0))
