# SPDX-License-Identifier: Apache-2.0
"""Training of the latent action models: exact resume, frames only, checkpoints that rebuild themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.config import ConvLaqConfig
from lapa_core.laq.train import frames_only, train
from lapa_core.laq.train_config import LaqTrainConfig
from tests.toy import TOY_PATCH, Interrupted, die_after_step, toy_store

CONV = ConvLaqConfig(width=8, codes=4)
PATCH = TOY_PATCH


def config(out: Path, model=CONV, **changes) -> LaqTrainConfig:
    base = LaqTrainConfig(
        gap_s=0.4,
        data=Path("toy"),
        out=out,
        model=model,
        steps=4,
        batch_size=8,
        save_every=2,
        log_every=1,
        progress=False,
    )
    return replace(base, **changes)


def losses(run_dir: Path) -> list[tuple[int, float]]:
    import json

    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


EVERYTHING = {
    "labelled": Path("toy"), "gap_range_s": (0.2, 0.8), "shift_px": 2, "crop": 0.1, "light": 0.1, "colour": 0.1,
    "precision": "bf16",
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "changes"),
    [(CONV, {}), (PATCH, {}), (PATCH, EVERYTHING), (replace(PATCH, quantiser="vq_ema"), {})],
    ids=["conv", "patch", "everything", "vq_ema"],
)
def test_two_plus_two_steps_equal_four_straight(tmp_path, monkeypatch, model, changes):
    store, labelled = toy_store(), toy_store(seed=1) if changes else None
    straight = train(config(tmp_path / "straight", model, **changes), store, labelled)

    with monkeypatch.context() as patch:
        die_after_step(patch, 1)
        with pytest.raises(Interrupted):
            train(config(tmp_path / "resumed", model, **changes), store, labelled)
    resumed = train(config(tmp_path / "resumed", model, **changes), store, labelled)

    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight")
    one, other = (
        load_laq(straight.checkpoint)[0].state_dict(),
        load_laq(resumed.checkpoint)[0].state_dict(),
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_resumed_run_of_the_released_network_goes_on_counting_its_codes(tmp_path, monkeypatch):
    """Step 10 heals by the counts since step 0; the release's state dict has no place for them."""
    model = replace(PATCH, compat="release")
    changes = {"steps": 12, "save_every": 8}
    straight = train(config(tmp_path / "straight", model, **changes), toy_store())
    with monkeypatch.context() as patch:
        die_after_step(patch, 7)
        with pytest.raises(Interrupted):
            train(config(tmp_path / "resumed", model, **changes), toy_store())
    resumed = train(config(tmp_path / "resumed", model, **changes), toy_store())
    healed = dict(straight.history)[10]
    assert "perplexity/token0" in healed
    assert dict(resumed.history)[10] == healed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gap_s": float("nan")}, "gap_s is nan"),
        ({"gap_range_s": (0.6, 0.2)}, "in rising order"),
        ({"batch_size": 1}, "batch_size is 1; at least 2"),
        ({"labelled_batch_size": 1}, "labelled_batch_size is 1; at least 2"),
        ({"log_every": 0}, "log_every is 0; at least 1"),
        ({"save_every": -1}, "save_every is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"crop": 1.0}, "crop is 1.0"),
        ({"labelled_episodes": 3}, "give --labelled"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, wrong, message):
    with pytest.raises(ContractError, match=message):
        config(tmp_path, **wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_px", 0), ("width", 6), ("keypoints", -4), ("latent_dim", 0), ("codes", 1)],
)
def test_sizes_of_the_conv_design_that_do_not_fit_are_refused(name, value):
    with pytest.raises(ContractError, match=f"{name} is {value}"):
        ConvLaqConfig(**{name: value})


def test_resume_with_other_settings_is_refused(tmp_path):
    train(config(tmp_path), toy_store())
    with pytest.raises(CheckpointError, match="learning_rate"):
        train(config(tmp_path, learning_rate=1e-4), toy_store())


@pytest.mark.parametrize("model", [CONV, PATCH, replace(PATCH, compat="release")])
def test_training_starts_from_a_checkpoint(tmp_path, model):
    first = train(config(tmp_path / "first", model), toy_store()).checkpoint
    still = config(tmp_path / "still", model, init=first, steps=1, learning_rate=1e-12)
    moved = replace(config(tmp_path / "moved", model, init=first), learning_rate=1e-2)

    before, after = load_laq(first)[0], load_laq(train(still, toy_store()).checkpoint)[0]
    other = load_laq(train(moved, toy_store()).checkpoint)[0]

    weights = [dict(m.named_parameters()) for m in (before, after, other)]
    assert all(torch.allclose(weights[0][k], weights[1][k], atol=1e-6) for k in weights[0])
    assert any(not torch.allclose(weights[0][k], weights[2][k], atol=1e-3) for k in weights[0])


def test_a_checkpoint_of_other_sizes_to_start_from_is_refused(tmp_path):
    first = train(config(tmp_path / "first"), toy_store()).checkpoint
    with pytest.raises(CheckpointError, match="width 8 instead of 12"):
        train(config(tmp_path / "second", replace(CONV, width=12), init=first), toy_store())


def test_the_stage_cannot_reach_actions():
    assert frames_only(toy_store()).actions is None


@pytest.mark.parametrize("model", [CONV, PATCH], ids=["conv", "patch"])
def test_checkpoint_rebuilds_the_same_model(tmp_path, model):
    store = toy_store()
    loaded, facts = load_laq(train(config(tmp_path, model), store).checkpoint)
    assert facts["gap_s"] == 0.4
    latent = loaded.encode(store.frames[:5], store.frames[2:7])
    assert latent.codes_BK.shape == (5, loaded.tokens)
    assert latent.codes_BK.max() < loaded.codes
    later = loaded.decode(store.frames[:5], latent.codes_BK)
    assert later.shape == store.frames[:5].shape
    assert later.dtype == np.uint8


def test_frames_of_another_size_are_refused(tmp_path):
    model, _ = load_laq(train(config(tmp_path), toy_store()).checkpoint)
    frames = toy_store(image_px=16).frames[:2]
    with pytest.raises(DataError, match="image_px=32"):
        model.encode(frames, frames)
    good = toy_store().frames[:2]
    with pytest.raises(DataError, match="from 0 to 3"):
        model.decode(good, np.full((2, 1), 4))


def test_conv_design_finds_the_motion_of_the_toy(tmp_path):
    """A quarter of a minute would make it perfect; sixty steps make the codes clearly better than chance."""
    store = toy_store(episodes=40)
    trained = train(
        config(tmp_path, ConvLaqConfig(width=8, codes=8), steps=60, batch_size=32, save_every=0),
        store,
    )
    model, _ = load_laq(trained.checkpoint)
    pairs = store.valid_pairs(0.4)
    codes = model.encode(store.frames[pairs[:, 0]], store.frames[pairs[:, 1]]).codes_BK[:, 0]
    direction = store.episode_ids[pairs[:, 0]] % 4
    agree = sum(np.bincount(direction[codes == code]).max() for code in np.unique(codes))
    assert agree / len(codes) > 0.6
