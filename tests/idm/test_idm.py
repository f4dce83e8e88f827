# SPDX-License-Identifier: Apache-2.0
"""The inverse dynamics model: it learns motion from few labels, resumes exactly, and labels videos honestly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lapa_core.checkpoint import load_config
from lapa_core.data.store import FrameStore, join_stores
from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.idm.checkpoint import load_idm
from lapa_core.idm.config import IDM_TRAIN, IdmModelConfig, IdmTrainConfig
from lapa_core.idm.pseudo import pseudo_labelled
from lapa_core.idm.train import measure, train
from lapa_core.policy import DEFAULT_CHECKPOINT
from lapa_core.presets import VLA_FINETUNE
from lapa_core.vla.config import FinetuneConfig
from lapa_core.vla.finetune import train as finetune
from tests.toy import Interrupted, die_after_step

SIDE = 16


def moving_squares(
    episodes: int, seed: int, *, frames: int = 6, labelled: bool = True
) -> FrameStore:
    """A bright square that is moved by whole pixels: the action says by how many centimetres."""
    random = np.random.default_rng(seed)
    pictures, actions = [], []
    for _ in range(episodes):
        at = random.integers(3, SIDE - 7, size=2)
        for _ in range(frames):
            picture = np.full((SIDE, SIDE, 3), 40, np.uint8)
            picture[at[0] : at[0] + 4, at[1] : at[1] + 4] = 220
            step = np.clip(at + random.integers(-2, 3, size=2), 0, SIDE - 4) - at
            pictures.append(picture)
            actions.append([0.01 * step[0], 0.01 * step[1], 0, 0, 0, 0, 1])
            at = at + step
    return FrameStore(
        frames=np.stack(pictures),
        episode_offsets=np.arange(episodes + 1) * frames,
        instructions=["move the square"] * episodes,
        fps=5.0,
        timestamps_s=np.tile(np.arange(frames) / 5.0, episodes),
        actions=np.asarray(actions, np.float32) if labelled else None,
    )


def recipe(folder, **changes) -> IdmTrainConfig:
    sizes = IdmModelConfig(image_px=SIDE, width=8, keypoints=8, hidden=32)
    return replace(
        IDM_TRAIN["debug"], data=folder / "data", out=folder / "idm", model=sizes, steps=150, batch_size=32, episodes=0,
        shift_px=0, learning_rate=5e-3, progress=False, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(recipe(tmp_path_factory.mktemp("idm")), moving_squares(60, seed=0))


def test_motion_is_read_off_episodes_that_were_not_trained_on(trained):
    metrics = load_config(trained.checkpoint)["metrics"]
    assert metrics["test_pairs"] == 6 * 5
    assert set(metrics["r2"]) == {"dx", "dy"}, "what never changes has no R2"
    assert min(metrics["r2"].values()) > 0.8
    assert metrics["mean_error"]["gripper"] < 1e-2


def test_a_single_short_episode_is_measured_against_the_mean_of_the_training(trained):
    model, config = load_idm(trained.checkpoint)
    still = moving_squares(1, seed=4)
    still = replace(
        still,
        frames=np.repeat(still.frames[:1], 6, axis=0),
        actions=np.zeros_like(still.actions) + model.head.mean_A.numpy(),
    )
    assert measure(model, still, config["gap_s"])["r2"] == {}
    moving = measure(model, moving_squares(1, seed=5), config["gap_s"])
    assert min(moving["r2"].values()) > 0.5


def test_videos_get_the_actions_that_are_seen_in_them_and_lose_their_own(trained):
    model, config = load_idm(trained.checkpoint)
    videos = moving_squares(5, seed=7)
    labelled, rows = pseudo_labelled(videos, model, config["gap_s"])
    assert rows.tolist() == [i for i in range(30) if i % 6 != 5], "the last frame has no later one"
    assert (labelled.num_episodes, len(labelled)) == (5, 25)
    np.testing.assert_array_equal(labelled.frames, videos.frames[rows])
    assert np.abs(labelled.actions[:, :2] - videos.actions[rows][:, :2]).mean() < 0.004
    lying = replace(videos, actions=videos.actions + 1.0)
    np.testing.assert_array_equal(
        pseudo_labelled(lying, model, config["gap_s"]).store.actions, labelled.actions
    )


def test_an_episode_of_one_frame_is_left_out(trained):
    model, config = load_idm(trained.checkpoint)
    short = moving_squares(1, seed=1, frames=1, labelled=False)
    videos = join_stores([moving_squares(2, seed=2, labelled=False), short])
    labelled, _ = pseudo_labelled(videos, model, config["gap_s"])
    assert labelled.num_episodes == 2
    with pytest.raises(DataError, match="no pair of frames"):
        pseudo_labelled(short, model, config["gap_s"])


def test_a_resumed_run_equals_a_straight_one(tmp_path, monkeypatch, trained):
    store, config = moving_squares(60, seed=0), recipe(tmp_path, save_every=60)
    with monkeypatch.context() as patch:
        die_after_step(patch, 100)
        with pytest.raises(Interrupted):
            train(config, store)
    resumed = train(config, store)
    assert resumed.history[0][0] > 59, "it goes on from where it was saved"
    assert resumed.history[-1] == trained.history[-1]
    straight, again = (load_config(run.checkpoint)["weights_sha256"] for run in (trained, resumed))
    assert straight == again


def test_a_policy_learns_the_actions_that_are_seen_in_videos_without_any(tmp_path, trained):
    videos = moving_squares(12, seed=3, labelled=False)
    config = replace(
        VLA_FINETUNE["debug_vpt"], data=tmp_path / "videos", idm=trained.checkpoint, out=tmp_path / "vpt", steps=4,
        model=replace(VLA_FINETUNE["debug_vpt"].model, image_px=SIDE), progress=False,
    )  # fmt: skip
    told = load_config(finetune(config, videos).checkpoint)
    made_by = load_config(trained.checkpoint)
    assert told["contract"] == made_by["contract"]
    assert told["training"]["idm_sha256"] == made_by["weights_sha256"]
    assert told["metrics"]["frames"] == 12 * 5
    with pytest.raises(DataError, match="no actions"):
        finetune(replace(config, idm=None, out=tmp_path / "without"), videos)


def test_bad_input_is_refused(tmp_path, trained):
    store = moving_squares(1, seed=0)
    with pytest.raises(DataError, match="leaves none to train on"):
        train(recipe(tmp_path, test_share=0.9), store)
    with pytest.raises(DataError, match="no actions"):
        train(recipe(tmp_path), replace(store, actions=None))
    with pytest.raises(ContractError, match="test_share is 1"):
        recipe(tmp_path, test_share=1.0)
    with pytest.raises(ContractError, match="width is 6; it must be a multiple of 4"):
        IdmModelConfig(width=6)
    with pytest.raises(ContractError, match="give one of them"):
        FinetuneConfig(
            data=tmp_path, idm=trained.checkpoint, latent_weight=1.0, labels=tmp_path / "codes"
        )
    with pytest.raises(CheckpointError, match="'idm' is needed here"):
        load_idm(DEFAULT_CHECKPOINT)
    with pytest.raises(
        DataError, match="5 Hz at 16 px without actions, 5 Hz at 16 px with actions"
    ):
        join_stores([store, replace(store, actions=None)])
