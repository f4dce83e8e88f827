# SPDX-License-Identifier: Apache-2.0
"""The codes of earlier frames: which they are, in every family, and the same in training and behind `Policy.act`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lapa_core.bench.vla import Eye
from lapa_core.checkpoint import load_config
from lapa_core.data.store import FrameStore
from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.policy import Policy
from lapa_core.presets import VLA_FINETUNE, VLA_PRETRAIN
from lapa_core.train.parallel import Parallel
from lapa_core.vla import finetune, pretrain, table
from lapa_core.vla.checkpoint import load_vla
from lapa_core.vla.config import FinetuneConfig, PretrainConfig, TableConfig
from lapa_core.vla.decode.choose import greedy
from lapa_core.vla.engine import VlaEngine
from lapa_core.vla.estimate import estimate
from lapa_core.vla.history import HISTORY, NO_CODE, CodeMemory, earlier_codes, periods_of
from lapa_core.vla.pretrain_data import open_data
from tests.torchrun import until_half
from tests.toy import toy_store, write_labels

GAP_S, SIDE = 0.4, 32
FILM = replace(VLA_PRETRAIN["debug"].model, image_px=SIDE)
WORDS = "move the dot left"


def blind_store(episodes: int = 8) -> FrameStore:
    """Return episodes that pictures and words do not tell apart: one picture, one instruction."""
    store = toy_store(episodes=episodes, image_px=SIDE)
    actions = np.zeros_like(store.actions)
    actions[:, 0] = np.where(store.episode_ids % 2, 0.02, -0.02)
    return replace(
        store,
        frames=np.full_like(store.frames, 90),
        instructions=[WORDS] * episodes,
        actions=actions,
    )


def write_codes(folder: Path, store: FrameStore) -> Path:
    """Write two tokens per pair that say whether the episode's number is odd."""
    codes = store.episode_ids[store.valid_pairs(GAP_S)[:, :1]] % 2
    return write_labels(folder, store, np.repeat(codes, 2, axis=1), gap_s=GAP_S)


@pytest.fixture(scope="module")
def store():
    return blind_store()


@pytest.fixture(scope="module")
def labels(tmp_path_factory, store):
    return write_codes(tmp_path_factory.mktemp("labels") / "labels", store)


def common(out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data": Path("toy"), "out": out, "steps": 60, "batch_size": 16, "save_every": 0, "log_every": 1, "light": 0.0,
        "shift_px": 0, "learning_rate": 1e-2, "history": 1, "mean_weight": 0.0, "progress": False, **changes,
    }  # fmt: skip


def pretrain_config(out: Path, labels: Path, **changes: Any) -> PretrainConfig:
    fields = common(out, labels=labels, model=FILM, unknown_word_share=0.0, **changes)
    return PretrainConfig(**fields)


def finetune_config(out: Path, init: Path | None, labels: Path, **changes: Any) -> FinetuneConfig:
    fields = common(out, init=init, labels=labels, latent_weight=1.0, model=FILM, max_bins=4)
    return FinetuneConfig(**{**fields, "head_steps": 0, "trunk_factor": 1.0, **changes})


@pytest.fixture(scope="module")
def init(tmp_path_factory, store, labels):
    return pretrain.train(
        pretrain_config(tmp_path_factory.mktemp("init"), labels), store
    ).checkpoint


@pytest.fixture(scope="module")
def policy_path(tmp_path_factory, store, labels, init):
    config = finetune_config(tmp_path_factory.mktemp("policy"), init, labels)
    return finetune.train(config, store).checkpoint


def test_a_frame_is_shown_what_ended_there_and_nothing_of_what_comes():
    store = toy_store(episodes=2, length=6)
    pairs = store.valid_pairs(GAP_S)
    codes = 10 * pairs[:, :1] + pairs[:, 1:]  # tells its two frames
    earlier = earlier_codes(pairs, codes, len(store), 2)[..., 0]
    one = [[-1, -1], [-1, -1], [2, -1], [13, -1], [24, 2], [35, 13]]
    assert earlier[:6].tolist() == one
    assert earlier[6:8].tolist() == [[-1, -1]] * 2, "another episode"
    assert earlier[10].tolist() == [10 * 8 + 10, 10 * 6 + 8]


def test_a_policy_remembers_what_training_showed():
    store = toy_store(episodes=1, length=9)
    pairs = store.valid_pairs(GAP_S)
    codes = np.stack([pairs[:, 0] % 5, pairs[:, 0] % 3], axis=1)
    earlier = earlier_codes(pairs, codes, len(store), 3)
    memory = CodeMemory(3, 2, periods_of(GAP_S, store.fps))
    for t in range(len(codes)):
        assert np.array_equal(memory.codes(), earlier[t]), t
        memory.remember(tuple(codes[t].tolist()))
    memory.forget()
    assert (memory.codes() == NO_CODE).all()


def test_a_memory_is_what_the_checkpoint_says():
    config = {"latent": [2, 4], "gap_s": 0.6, "control_rate_hz": 5.0, "history": 2}
    memory = CodeMemory.of(config)
    for code in range(7):
        memory.remember((code, 0))
    assert memory.codes()[:, 0].tolist() == [4, 1], "three periods are 0.6 s"
    assert CodeMemory.of({**config, "history": 0}) is None
    with pytest.raises(CheckpointError, match="gap_s"):
        CodeMemory.of({**config, "gap_s": None})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["film", "lwm", "toy-smolvlm", "toy-qwen2_5_vl", "toy-paligemma"])
def test_every_family_reads_them(kind, store, labels, tmp_path, monkeypatch, tmp_path_factory):
    """Pictures and words say nothing here, so what is named right was read off the codes before."""
    monkeypatch.setenv("LAPA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    sizes: Any = FILM
    if kind == "lwm":
        sizes = VLA_PRETRAIN["lwm_debug"].model
    if kind.startswith("toy-"):
        sizes = replace(VLA_PRETRAIN["hf_debug"].model, model=kind, image_px=SIDE)
    side = sizes.image_px
    config = pretrain_config(tmp_path, labels, history=2, steps=60 if kind == "film" else 30)
    config = replace(config, model=sizes, learning_rate=5e-3)
    trained = pretrain.train(config, store.at_size(side))
    loaded = load_vla(trained.checkpoint)
    model = loaded.model
    assert loaded.config[HISTORY] == 2
    frames = torch.full((3, 3, side, side), 90 / 255)
    codes = torch.tensor([[[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 1], [NO_CODE, NO_CODE]]])
    with torch.no_grad():
        inputs = model.read(model.prepare(frames, [WORDS] * 3, {HISTORY: codes}))
        named = model.decode(inputs, "latent", greedy)
        forced = model.latent_logits(inputs, named)
    assert named.tolist() == [[0, 0], [1, 1], [1, 1]]
    assert torch.equal(forced.argmax(dim=-1), named)
    with pytest.raises(DataError, match="earlier frames are missing"):
        model.prepare(frames, [WORDS] * 3)
    with pytest.raises(DataError, match=r"\(3, 1, 2\)"):
        model.prepare(frames, [WORDS] * 3, {HISTORY: codes[:, :1]})


def test_a_policy_reads_the_codes_that_it_named(policy_path, store, monkeypatch):
    assert load_config(policy_path)["gap_s"] == GAP_S
    shown = []
    real = VlaEngine.step_with

    def spy(self, frame, instruction, extra):
        shown.append(extra[HISTORY][0].tolist())
        return real(self, frame, instruction, extra)

    policy = Policy.load(policy_path)
    monkeypatch.setattr(VlaEngine, "step_with", spy)
    named = [list(policy.act(store.frames[0], WORDS).latent) for _ in range(5)]
    none = [NO_CODE, NO_CODE]
    assert shown == [none, none, *named[:3]], "two control periods are 0.4 s"
    policy.act(store.frames[0], "another")
    assert shown[-1] == none, "an instruction begins anew"
    for _ in range(2):
        policy.act(store.frames[0], "another")
    assert shown[-1] != none
    policy.reset()
    policy.act(store.frames[0], "another")
    assert shown[-1] == none


def test_the_action_follows_the_codes_before(policy_path, store):
    engine = Policy.load(policy_path).engine
    for odd, sign in ((0, -1), (1, 1)):
        told = {HISTORY: np.full((1, 2), odd)}
        decision = engine.step_with(store.frames[0], WORDS, told)
        assert decision.latent == (odd, odd)
        assert np.sign(decision.action_7[0]) == sign


def test_a_table_is_fitted_to_what_the_model_names_in_turn(init, store, tmp_path):
    path = table.fit(TableConfig(data=Path("toy"), init=init, out=tmp_path, max_bins=4), store)
    policy = Policy.load(path)
    assert policy.config[HISTORY] == 1
    steps = [policy.act(store.frames[0], WORDS) for _ in range(3)]
    assert steps[2].latent == steps[0].latent, "what it named is what it goes on with"
    named = table.NamedCodes(load_vla(init), store, {})
    with torch.no_grad():
        rows = list(table.row_batches(store, in_turn=True))
        likeliest = [named(part).reshape(-1, 2, 2).argmax(axis=-1) for part in rows]
    assert np.array_equal(np.sort(np.concatenate(rows)), np.arange(len(store)))
    assert np.array_equal(likeliest[0], likeliest[2])


def test_resuming_repeats_the_straight_run(store, labels, tmp_path):
    straight = pretrain.train(pretrain_config(tmp_path / "a", labels, steps=4), store)
    half = pretrain_config(tmp_path / "b", labels, steps=4, save_every=2)
    until_half(lambda: pretrain.train(half, store))
    resumed = pretrain.train(half, store)
    assert resumed.history[-1] == straight.history[-1]


def test_stages_that_do_not_fit_are_refused(init, store, labels, tmp_path):
    with pytest.raises(ContractError, match="--latent-weight"):
        FinetuneConfig(data=Path("toy"), history=1)
    with pytest.raises(ContractError, match="give --history 1"):
        finetune.train(finetune_config(tmp_path / "a", init, labels, history=0), store)
    with pytest.raises(ContractError, match="give --history 1"):
        pretrain.train(pretrain_config(tmp_path / "b", labels, init=init, history=2), store)
    without = pretrain.train(pretrain_config(tmp_path / "c", labels, history=0, steps=2), store)
    model = load_vla(without.checkpoint).model
    with pytest.raises(ContractError, match="trained without"):
        model.prepare(torch.rand(1, 3, SIDE, SIDE), ["go"], {HISTORY: torch.zeros(1, 1, 2)})
    later = finetune.train(finetune_config(tmp_path / "d", without.checkpoint, labels), store)
    assert load_vla(later.checkpoint).model.earlier is not None, "finetuning may begin with them"


def test_figures_are_taken_over_as_many_frames_at_a_time_as_training(store, labels, tmp_path):
    """A card that holds `micro_batch` frames of a model must not meet a whole batch at the end of its run."""
    config = pretrain_config(tmp_path, labels, micro_batch=5)
    data = open_data(config, FILM, store, Parallel("cpu"))
    sizes = [len(batch.words) for batch in data.batches.report()]
    assert max(sizes) == 5
    assert sum(sizes) == len(data.labels.pairs_P2)


def test_a_bench_shows_a_checkpoint_that_nothing_was_before(init):
    eye = Eye(load_vla(init).model)
    assert eye.inputs(0)[HISTORY].tolist() == [[[NO_CODE, NO_CODE]]]


@pytest.mark.parametrize("preset", ["lwm_debug", "hf_debug"])
def test_a_dry_run_counts_them(preset, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("LAPA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    config = VLA_FINETUNE[preset]
    config = replace(config, init=None, labels=Path("codes"), latent_weight=1.0)
    plain, told = estimate(config), estimate(replace(config, history=2))
    assert told.positions == plain.positions + 2 * 4
    width = (told.parameters - plain.parameters) / (2 * 4 * (8 + 1))
    assert width == int(width) > 0
