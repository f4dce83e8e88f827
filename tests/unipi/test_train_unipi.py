# SPDX-License-Identifier: Apache-2.0
"""The video diffusion model: what it is trained on, that it learns, and that a run goes on where it was stopped."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lapa_core.checkpoint import load_config
from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.unipi.checkpoint import load_video
from lapa_core.unipi.config import UNIPI_TRAIN, UNIPI_TRAIN_NOTES, VideoConfig
from lapa_core.unipi.model import VideoDiffusion
from lapa_core.unipi.train import train
from lapa_core.unipi.windows import find_windows, load_windows
from lapa_core.vla.words import Vocabulary
from tests.toy import Interrupted, die_after_step, toy_store

CPU = torch.device("cpu")
SIZES = UNIPI_TRAIN["debug"].model


class Silent(VideoDiffusion):
    """Says that nothing changes."""

    def _denoise(self, noisy_BCSS, first_B3SS, told_BD, time_B):
        return torch.zeros_like(noisy_BCSS)


def short(tmp_path, name="run", **changed):
    settings = {"episodes": 0, "held_out": 2, "steps": 4, "log_every": 1, "progress": False}
    return replace(UNIPI_TRAIN["debug"], out=tmp_path / name, **{**settings, **changed})


def test_windows_stay_in_their_episode_and_say_what_is_missing():
    store = toy_store(episodes=3, length=4)
    windows = find_windows(store, 3, 0.2)
    assert windows.first_W.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert windows.known_WF[:3].tolist() == [[True] * 3, [True, True, False], [True, False, False]]
    assert windows.later_WF[:3].tolist() == [[1, 2, 3], [2, 3, 1], [3, 2, 2]]


def test_windows_are_a_period_apart_whatever_the_rate_of_the_video():
    store = toy_store(episodes=1, length=9)
    fast = replace(store, fps=10.0, timestamps_s=store.timestamps_s / 2)
    windows = find_windows(fast, 2, 0.2)
    assert windows.later_WF[windows.known_WF.all(axis=1)].tolist() == [
        [i + 2, i + 4] for i in range(5)
    ]
    batch = load_windows(fast, windows, np.array([1]), CPU)
    frame = torch.from_numpy(fast.frames[5].copy()).permute(2, 0, 1) / 255
    assert torch.equal(batch.later_BF3SS[0, 1], frame)
    with pytest.raises(DataError, match=r"no frame has another one 3.0 s later"):
        find_windows(store, 2, 3.0)


def test_the_loss_is_the_error_of_the_frames_that_are_there():
    store = toy_store(episodes=2, length=3)
    model = Silent(SIZES, Vocabulary.fit(store.instructions), change_std=0.5)
    windows = find_windows(store, SIZES.frames, 0.2)
    batch = load_windows(store, windows, np.arange(4), CPU)
    change = (batch.later_BF3SS - batch.first_B3SS[:, None]) / 0.5
    there = [
        change[i, f].square().mean() for i, f in zip(*np.nonzero(windows.known_WF), strict=True)
    ]
    loss = model.loss(batch, model.encode(["move"] * 4))
    assert loss.item() == pytest.approx(np.mean(there), rel=1e-5)
    assert not change[~batch.known_BF].any(), "no frame of another episode is looked at"


def test_a_resumed_run_repeats_the_straight_one(tmp_path, monkeypatch):
    store = toy_store()
    straight = train(short(tmp_path, shift_px=1), store)
    half = short(tmp_path, "stopped", shift_px=1, save_every=2)
    with monkeypatch.context() as patch:
        die_after_step(patch, 1)
        with pytest.raises(Interrupted):
            train(half, store)
    resumed = train(half, store)
    assert [step for step, _ in resumed.history] == [2, 3, 3]
    assert resumed.history == straight.history[2:]
    held = [load_video(each.checkpoint).model.state_dict() for each in (straight, resumed)]
    assert all(torch.equal(held[0][name], held[1][name]) for name in held[0])
    with pytest.raises(CheckpointError, match="learning_rate"):
        train(replace(half, learning_rate=0.5), store)


def test_actions_are_not_looked_at(tmp_path):
    store = toy_store()
    blind = train(short(tmp_path, "blind"), replace(store, actions=None))
    assert blind.history == train(short(tmp_path, "seeing"), store).history


@pytest.mark.slow  # it learns
def test_plans_follow_the_words(tmp_path):
    """A red dot moves as it is told: plans beat repeating the first frame, and other words give another plan."""
    store = toy_store(episodes=40, length=4, image_px=16)
    sizes = replace(SIZES, image_px=16, frames=2, widths=(32,))
    config = short(
        tmp_path, model=sizes, held_out=8, steps=120, batch_size=16, learning_rate=5e-3, log_every=50
    )  # fmt: skip
    trained = train(config, store)
    facts = load_config(trained.checkpoint)
    for plan, copy in zip(facts["metrics"]["plan"], facts["metrics"]["copy"], strict=True):
        assert plan < 0.6 * copy
    row = json.loads((config.out / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["plan_error/frame2"] == facts["metrics"]["plan"][1]
    model = load_video(trained.checkpoint).model
    windows = find_windows(store, 2, 0.2)
    first = load_windows(store, windows, np.array([2]), CPU).first_B3SS
    plans = [
        model.plan(first, model.encode([f"move the dot {word}"]), torch.zeros(1, 6, 16, 16), 4)
        for word in ("left", "right")
    ]
    assert centre(plans[0][0, 1]) < centre(first[0]) < centre(plans[1][0, 1])


def centre(image_3SS):
    """Return the column around which the red of a picture lies [px]."""
    red_S = (image_3SS[0] - image_3SS[0].median()).clamp(min=0.1).sub(0.1).sum(dim=0)
    return float((red_S * torch.arange(len(red_S))).sum() / red_S.sum())


def test_finetuning_goes_on_from_weights_and_words(tmp_path):
    store = toy_store()
    before = train(short(tmp_path, "videos"), store)
    few = replace(store, instructions=["push the dot left"] * store.num_episodes)
    config = short(
        tmp_path, "few", init=before.checkpoint, learning_rate=1e-9, weight_decay=0.0, episodes=6
    )  # fmt: skip
    after = train(config, few)
    old, new = (load_video(each.checkpoint) for each in (before, after))
    assert new.model.text.words == old.model.text.words
    assert new.config["training"]["started_from"] == old.config["weights_sha256"]
    assert new.config["training"]["windows"] == 4 * 7
    for name, tensor in old.model.state_dict().items():
        assert torch.allclose(tensor, new.model.state_dict()[name], atol=1e-6), name
    unknown, none = (new.model.trunk.text(new.model.encode([text])) for text in ("push", "pull"))
    assert torch.equal(unknown, none), "words that no video had say nothing"


def test_a_sheet_shows_plans_above_what_came(tmp_path):
    config = short(tmp_path)
    train(config, toy_store())
    with Image.open(config.out / "samples.png") as sheet:
        assert sheet.size == (5 * 100, 2 * (22 + 2 * 100)), "two held-out episodes, five frames"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"held_out": 12}, "held_out is 12 of 12 episodes"),
        ({"episodes": 99}, "99 labelled episodes"),
    ],
)
def test_too_few_episodes_are_refused(tmp_path, changed, told):
    with pytest.raises(DataError, match=told):
        train(short(tmp_path, **changed), toy_store())


def test_episodes_that_cannot_measure_are_refused_before_the_training(tmp_path):
    store = toy_store(episodes=2, length=4)
    short_last = replace(
        store, frames=store.frames[:5], episode_offsets=np.array([0, 4, 5]),
        timestamps_s=store.timestamps_s[:5], actions=None,
    )  # fmt: skip
    config = short(tmp_path, held_out=1)
    with pytest.raises(DataError, match="no frame has another one"):
        train(config, short_last)
    assert not config.out.exists()


def test_a_frame_that_no_episode_reaches_has_no_error(tmp_path):
    trained = train(short(tmp_path), toy_store(length=3))
    assert trained.history[-1][1].keys() == {
        f"{name}_error/frame{ahead}" for name in ("plan", "copy") for ahead in (1, 2)
    }


def test_more_denoising_than_the_start_allows_is_refused(tmp_path):
    before = train(short(tmp_path, "videos"), toy_store())
    config = short(tmp_path, "few", init=before.checkpoint, model=VideoConfig(), sampling_steps=51)
    with pytest.raises(ContractError, match=r"sampling_steps is 51; .* allows 1 to 50"):
        train(config, toy_store())


def test_videos_of_nothing_are_refused(tmp_path):
    store = toy_store()
    still = replace(store, frames=np.zeros_like(store.frames))
    with pytest.raises(DataError, match="no pixel of the videos changes"):
        train(short(tmp_path), still)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"image_px": 30}, "image_px is 30; it must be a multiple of 4"),
        ({"image_px": 36}, "need a multiple of 8"),
        ({"signal": 0.0}, "signal is 0.0"),
        ({"widths": (12,)}, "multiples of 8"),
        ({"widths": ()}, "multiples of 8"),
        ({"frames": 0}, "frames is 0; allowed is 1 and more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changed, told):
    with pytest.raises(ContractError, match=told):
        replace(VideoConfig(), **changed)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"period_s": 0.0}, "period_s is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"sampling_steps": 51}, "sampling_steps is 51; allowed are 1 to 50"),
        ({"batch_size": 1}, "batch_size is 1"),
    ],
)
def test_training_options_that_do_not_fit_are_refused(changed, told):
    with pytest.raises(ContractError, match=told):
        replace(UNIPI_TRAIN["debug"], **changed)


def test_every_preset_has_a_note():
    assert UNIPI_TRAIN.keys() == UNIPI_TRAIN_NOTES.keys()
