# SPDX-License-Identifier: Apache-2.0
"""Each family of models through the same stages: latent pretraining, finetuning, a policy that acts.

What the paper does at 7B parameters runs here at toy widths, and so do the options of finetuning.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.checkpoint import load_config
from lapa_core.data.lerobot import LeRobotWriter
from lapa_core.data.lerobot_format import make_features
from lapa_core.data.store import FrameStore
from lapa_core.errors import ContractError, DataError
from lapa_core.laq.labels import LatentLabels
from lapa_core.policy import Policy
from lapa_core.presets import VLA_FINETUNE, VLA_PRETRAIN
from lapa_core.vla import finetune, pretrain, table
from lapa_core.vla.checkpoint import load_vla
from lapa_core.vla.config import TableConfig
from lapa_core.vla.decode.choose import greedy
from lapa_core.vla.labelled import frame_codes, frame_rows, future_actions
from lapa_core.vla.objective import UNLABELLED
from tests.toy import toy_store, write_labels

PRESETS = {"film": "debug", "lwm": "lwm_debug", "hf": "hf_debug"}
IMAGE_PX = {"film": 64, "lwm": 16, "hf": 32}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The toy backbone is made once for this file, not in the user's cache."""
    monkeypatch.setenv("LAPA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module", params=list(PRESETS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def store(kind):
    return toy_store(image_px=IMAGE_PX[kind])


@pytest.fixture(scope="module")
def labels(tmp_path_factory, store):
    """Perfect codes: the direction of each episode, twice."""
    pairs = store.valid_pairs(0.4)
    codes = np.repeat(store.episode_ids[pairs[:, :1]] % 4, 2, axis=1)
    return write_labels(tmp_path_factory.mktemp("labels") / "labels", store, codes, gap_s=0.4)


def quiet(out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data": Path("toy"), "out": out, "batch_size": 8, "save_every": 0, "log_every": 1, "max_episodes": 0,
        "episodes": 0, "progress": False, **changes,
    }  # fmt: skip


def pretrain_config(kind, out, labels, **changes):
    fields = quiet(out, labels=labels, steps=12, **changes)
    del fields["episodes"]
    return replace(VLA_PRETRAIN[PRESETS[kind]], **fields)


def finetune_config(kind, out, init, **changes):
    fields = quiet(out, init=init, max_bins=8, **{"steps": 4, "head_steps": 1, **changes})
    del fields["max_episodes"]
    return replace(VLA_FINETUNE[PRESETS[kind]], **fields)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, kind, store, labels):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        config = pretrain_config(kind, tmp_path_factory.mktemp(kind), labels)
        return pretrain.train(config, store)


@pytest.mark.slow
def test_latent_pretraining_learns_and_says_what_it_is_worth(pretrained):
    losses = [row["loss"] for _, row in pretrained.history]
    assert np.mean(losses[-3:]) < losses[0]
    codes = load_config(pretrained.checkpoint)["metrics"]["codes"]
    assert set(codes["accuracy"]) == set(codes["majority"]) == {"token0", "token1"}
    assert codes["majority"]["token0"] == pytest.approx(0.25)
    assert {"accuracy/token1", "majority/token1"} <= set(pretrained.history[0][1])


@pytest.mark.slow
def test_a_pretrained_model_names_codes_as_its_teacher_forced_logits_do(pretrained, store):
    model = load_vla(pretrained.checkpoint).model
    frames = torch.from_numpy(store.frames[:3]).permute(0, 3, 1, 2) / 255.0
    with torch.no_grad():
        inputs = model.read(model.prepare(frames, ["move the dot left"] * 3))
        codes = model.decode(inputs, "latent", greedy)
        assert codes.shape == (3, 2)
        assert torch.equal(model.latent_logits(inputs, codes).argmax(dim=-1), codes)


@pytest.mark.slow
def test_finetuning_makes_a_policy_that_acts_inside_its_bins(kind, pretrained, store, tmp_path):
    trained = finetune.train(finetune_config(kind, tmp_path, pretrained.checkpoint), store)
    config = load_config(trained.checkpoint)
    assert (config["decoder"], config["latent"]) == ("head", None)
    assert set(config["metrics"]["bins"]["accuracy"]) == set(config["metrics"]["bins"]["majority"])
    assert config["metrics"]["action"]["translation_m"] > 0.0
    policy = Policy.load(trained.checkpoint)
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    step = policy.act(picture, "move the dot left")
    assert np.array_equal(policy.act(picture, "move the dot left").bins, step.bins)
    sampled = {
        tuple(policy.act(picture, "move the dot left").bins)
        for policy in (Policy.load(trained.checkpoint, temperature=5.0, seed=s) for s in range(3))
    }
    assert len(sampled) > 1


@pytest.mark.slow
def test_a_table_decodes_the_codes_of_every_family(kind, pretrained, store, tmp_path):
    path = table.fit(
        TableConfig(data=Path("toy"), init=pretrained.checkpoint, out=tmp_path, max_bins=8), store
    )
    step = Policy.load(path).act(store.frames[0], "move the dot left")
    assert len(step.latent) == 2
    assert step.chunk_H7.shape == (1, 7)


@pytest.mark.slow
def test_a_continuous_chunk_and_the_latent_loss_together(kind, pretrained, store, labels, tmp_path):
    options = {"continuous": True, "chunk": 3, "latent_weight": 0.5, "labels": labels}
    trained = finetune.train(
        finetune_config(kind, tmp_path, pretrained.checkpoint, **options), store
    )
    assert all(np.isfinite(row["latent"]) for _, row in trained.history)
    policy = Policy.load(trained.checkpoint)
    step = policy.act(store.frames[0], "move the dot left")
    assert step.chunk_H7.shape == (3, 7)
    assert np.array_equal(step.chunk_H7[0], step.delta.to_array())
    assert step.latent is None, "nobody asked"
    telling = Policy.load(trained.checkpoint, latents=True)
    told = telling.act(store.frames[0], "move the dot left")
    assert len(told.latent) == 2, "the latent head was kept"
    assert np.array_equal(told.chunk_H7, step.chunk_H7)
    caps = policy.config["max_translation_m"], policy.config["max_rotation_rad"]
    assert (np.linalg.norm(step.chunk_H7[:, :3], axis=1) <= caps[0] * (1 + 1e-9)).all()
    assert (np.linalg.norm(step.chunk_H7[:, 3:6], axis=1) <= caps[1] * (1 + 1e-9)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"latent_weight": 2.0}, {"continuous": True, "chunk": 4}], ids=str
)
def test_gradients_of_parts_of_a_batch_are_those_of_the_batch(
    kind, pretrained, store, labels, tmp_path, options
):
    """Frames that lack codes, or actions behind them, are not divided evenly among the parts."""
    straight = {"steps": 2, "head_steps": 0, "dropout": 0.0, "mean_weight": 0.0, "light": 0.0}
    straight |= {"labels": labels, **options}
    losses = [
        [
            row["loss"]
            for _, row in finetune.train(
                finetune_config(
                    kind, tmp_path / str(size), pretrained.checkpoint, micro_batch=size, **straight
                ),
                store,
            ).history
        ]
        for size in (0, 3)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_continuous_head_learns_the_toy(tmp_path):
    store = toy_store()
    config = finetune_config(
        "film", tmp_path, None, steps=150, continuous=True, chunk=2, learning_rate=0.02,
        model=replace(VLA_FINETUNE["debug_scratch"].model, image_px=32), trunk_factor=1.0,
    )  # fmt: skip
    trained = finetune.train(config, store)
    error = load_config(trained.checkpoint)["metrics"]["action"]
    assert error["translation_m"] < 0.5 * error["translation_m_of_mean"]
    policy = Policy.load(trained.checkpoint)
    assert policy.act(store.frames[3], "move the dot right").delta.translation_m[1] > 0.01
    assert policy.act(store.frames[3], "move the dot left").delta.translation_m[1] < -0.01


def test_the_latent_loss_needs_the_codes_that_the_model_speaks(tmp_path):
    store = toy_store()
    pairs = store.valid_pairs(0.4)
    codes = store.episode_ids[pairs[:, :1]]
    good = write_labels(tmp_path / "good", store, codes % 4, gap_s=0.4)
    other = write_labels(tmp_path / "other", store, codes % 2, gap_s=0.4)
    small = replace(VLA_PRETRAIN["debug"].model, image_px=32)
    init = pretrain.train(
        pretrain_config("film", tmp_path / "init", good, model=small), store
    ).checkpoint
    finetune.train(
        finetune_config("film", tmp_path / "a", init, latent_weight=0.1, labels=good), store
    )
    with pytest.raises(DataError, match="label the data with the model"):
        finetune.train(
            finetune_config("film", tmp_path / "b", init, latent_weight=0.1, labels=other), store
        )


def test_codes_and_chunks_stay_inside_their_episodes(tmp_path):
    store = toy_store(episodes=3, length=5)
    pairs = store.valid_pairs(0.4)
    labels = write_labels(tmp_path / "l", store, store.episode_ids[pairs[:, :1]] % 4, gap_s=0.4)
    codes = frame_codes(LatentLabels.load(labels), store)[frame_rows(store, np.array([2, 0]))]
    assert codes[:, 0].tolist() == [
        2,
        2,
        2,
        UNLABELLED,
        UNLABELLED,
        0,
        0,
        0,
        UNLABELLED,
        UNLABELLED,
    ]
    chunk, known = future_actions(store, 3)
    assert known[:5].tolist() == [[True] * 3] * 3 + [[True, True, False], [True, False, False]]
    assert np.array_equal(chunk[0], store.actions[:3])
    assert np.array_equal(chunk[4], np.repeat(store.actions[4:5], 3, axis=0))


def test_words_cannot_be_forgotten_where_there_is_no_unknown_word(tmp_path):
    store = toy_store(image_px=16)
    codes = store.episode_ids[store.valid_pairs(0.4)[:, :1]] % 4
    labels = write_labels(tmp_path / "labels", store, codes, gap_s=0.4)
    config = pretrain_config("lwm", tmp_path, labels, unknown_word_share=0.1)
    with pytest.raises(ContractError, match="unknown_word_share"):
        pretrain.train(config, store)


def two_camera_set(path: Path) -> Path:
    """Write a LeRobot set in which only the second camera and the state tell the episodes apart."""
    writer = LeRobotWriter(
        path,
        fps=5,
        features=make_features(
            {"front": (32, 32), "wrist": (32, 32)},
            action_names=ACTION_NAMES,
            state_names=ACTION_NAMES[:3],
        ),
        robot_type="wx250s",
    )
    for episode in range(4):
        grey = np.full((6, 32, 32, 3), 100, np.uint8)
        actions = np.zeros((6, 7))
        actions[:, 0] = 0.01 if episode % 2 else -0.01
        writer.add_episode(
            {"front": grey, "wrist": grey + np.uint8(100 * (episode % 2))},
            instruction="go",
            actions=actions,
            states=np.full((6, 3), float(episode % 2)),
        )
    return path


@pytest.mark.slow
def test_a_second_camera_and_the_state_are_read_learned_and_asked_for(tmp_path):
    data = two_camera_set(tmp_path / "data")
    model = replace(
        VLA_FINETUNE["hf_debug"].model, cameras=("front", "wrist"), state_dim=3, max_text=200
    )
    config = finetune_config(
        "hf", tmp_path / "run", None, data=data, model=model, steps=40, dropout=0.0,
        learning_rate=5e-3, freeze_stem=False,
    )  # fmt: skip
    trained = finetune.train(config)
    assert load_config(trained.checkpoint)["metrics"]["bins"]["accuracy"]["dx"] == 1.0
    policy = Policy.load(trained.checkpoint)
    grey = np.full((32, 32, 3), 100, np.uint8)
    for sign in (0, 1):
        extra = {"wrist": grey + np.uint8(100 * sign), "state": np.full(3, sign, np.float32)}
        step = policy.act(grey, "go", extra)
        assert np.sign(step.delta.translation_m[0]) == 2 * sign - 1
    with pytest.raises(DataError, match="'wrist', which is missing"):
        policy.act(grey, "go")
    with pytest.raises(DataError, match="state of 3 numbers; this model takes one of 7"):
        finetune.train(replace(config, out=tmp_path / "other", model=replace(model, state_dim=7)))


@pytest.mark.slow
def test_a_table_is_fitted_with_the_second_camera_and_the_state(tmp_path):
    data = two_camera_set(tmp_path / "data")
    store = FrameStore.load(data, 32)
    codes = store.episode_ids[store.valid_pairs(0.4)[:, :1]] % 2
    labels = write_labels(tmp_path / "labels", store, codes, gap_s=0.4)
    model = replace(
        VLA_PRETRAIN["hf_debug"].model, cameras=("front", "wrist"), state_dim=3, max_text=200
    )
    config = pretrain_config("hf", tmp_path / "run", labels, data=data, model=model)
    trained = pretrain.train(replace(config, steps=40, learning_rate=5e-3))
    path = table.fit(
        TableConfig(data=data, init=trained.checkpoint, out=tmp_path / "p", episodes=3)
    )
    policy, grey = Policy.load(path), np.full((32, 32, 3), 100, np.uint8)
    for sign in (0, 1):
        extra = {"wrist": grey + np.uint8(100 * sign), "state": np.full(3, sign, np.float32)}
        assert np.sign(policy.act(grey, "go", extra).delta.translation_m[0]) == 2 * sign - 1
