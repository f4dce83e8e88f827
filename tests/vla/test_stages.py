# SPDX-License-Identifier: Apache-2.0
"""Pretraining, finetuning and the code table on the toy: exact resume, frozen parts, policies that load."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lapa_core.actions.bins import ActionBins
from lapa_core.checkpoint import load_config
from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.laq.checkpoint import save_laq
from lapa_core.laq.config import ConvLaqConfig
from lapa_core.laq.conv import ConvLaq
from lapa_core.laq.labels import LatentLabels
from lapa_core.policy import Policy
from lapa_core.vla import finetune, pretrain, table
from lapa_core.vla.checkpoint import load_vla
from lapa_core.vla.config import FinetuneConfig, PretrainConfig, TableConfig, TrunkConfig
from lapa_core.vla.pretrain_data import check_labels
from tests.toy import Interrupted, die_after_step, toy_store, write_labels

TRUNK = TrunkConfig(image_px=32, width=8, blocks=1, keypoints=4, text_dim=8, features=16)


@pytest.fixture(scope="module")
def store():
    return toy_store()


@pytest.fixture
def labels(tmp_path, store):
    """Perfect codes: the direction of each episode."""
    pairs = store.valid_pairs(0.4)
    codes = store.episode_ids[pairs[:, :1]] % 4
    return write_labels(tmp_path / "labels", store, codes, gap_s=0.4)


def pretrain_config(out: Path, labels: Path, **changes) -> PretrainConfig:
    base = PretrainConfig(
        data=Path("toy"), labels=labels, out=out, model=TRUNK, steps=4, batch_size=8, save_every=2, log_every=1,
        progress=False,
    )  # fmt: skip
    return replace(base, **changes)


def finetune_config(out: Path, init: Path | None, **changes) -> FinetuneConfig:
    base = FinetuneConfig(
        data=Path("toy"), init=init, out=out, model=TRUNK, head_steps=2, steps=4, batch_size=8, save_every=2,
        log_every=1, max_bins=8, progress=False,
    )  # fmt: skip
    return replace(base, **changes)


def metrics(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_vla(one).model.state_dict(), load_vla(other).model.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_pretraining_two_plus_two_equals_four(tmp_path, monkeypatch, store, labels):
    straight = pretrain.train(pretrain_config(tmp_path / "a", labels), store)
    with monkeypatch.context() as patch:
        die_after_step(patch, 1)
        with pytest.raises(Interrupted):
            pretrain.train(pretrain_config(tmp_path / "b", labels), store)
    resumed = pretrain.train(pretrain_config(tmp_path / "b", labels), store)
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert same_weights(straight.checkpoint, resumed.checkpoint)


def test_finetuning_two_plus_two_equals_four(tmp_path, monkeypatch, store, labels):
    init = pretrain.train(pretrain_config(tmp_path / "init", labels), store).checkpoint
    straight = finetune.train(finetune_config(tmp_path / "a", init), store)
    with monkeypatch.context() as patch:
        die_after_step(patch, 1)
        with pytest.raises(Interrupted):
            finetune.train(finetune_config(tmp_path / "b", init), store)
    resumed = finetune.train(finetune_config(tmp_path / "b", init), store)
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert same_weights(straight.checkpoint, resumed.checkpoint)


def test_head_steps_leave_the_trunk_and_the_stem_stays_frozen(tmp_path, store, labels):
    init = pretrain.train(pretrain_config(tmp_path / "init", labels), store).checkpoint
    before = load_vla(init).model.trunk.state_dict()
    head_only = finetune_config(tmp_path / "head", init, head_steps=4)
    after = load_vla(finetune.train(head_only, store).checkpoint).model.trunk.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    gentle = finetune_config(tmp_path / "all", init, head_steps=1)
    after = load_vla(finetune.train(gentle, store).checkpoint).model.trunk.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("stem.") for name in changed)


def test_pretraining_learns_the_toy(tmp_path, store, labels):
    config = pretrain_config(
        tmp_path, labels, steps=150, batch_size=32, save_every=0, learning_rate=0.01
    )
    trained = pretrain.train(config, store)
    assert trained.history[-1][1]["accuracy"] > 0.9, "the words alone give the code away"


@pytest.mark.parametrize("decoder", ["head", "table"])
def test_policies_load_and_act(tmp_path, store, labels, decoder):
    first = pretrain_config(tmp_path / "init", labels, steps=150, save_every=0, learning_rate=0.01)
    init = pretrain.train(first, store).checkpoint
    if decoder == "head":
        config = finetune_config(
            tmp_path / "p", init, steps=150, head_steps=150, save_every=0, learning_rate=0.02
        )
        path = finetune.train(config, store).checkpoint
    else:
        path = table.fit(
            TableConfig(data=Path("toy"), init=init, out=tmp_path / "p", max_bins=8), store
        )
    policy = Policy.load(path, temperature=0.0)
    assert policy.control_rate_hz == 5.0
    step = policy.act(store.frames[3], "move the dot right")
    assert step.delta.translation_m[1] > 0.01
    assert policy.act(store.frames[3], "move the dot left").delta.translation_m[1] < -0.01
    assert (step.latent is None) == (decoder == "head")
    assert np.array_equal(policy.act(store.frames[3], "move the dot right").bins, step.bins)
    assert load_config(path)["provenance"]["command"]


def test_sampling_follows_its_seed_and_temperature(tmp_path, store):
    config = finetune_config(tmp_path, None, steps=2, temperature=1.0)
    path = finetune.train(config, store).checkpoint

    def decisions(**options):
        policy = Policy.load(path, **options)
        return [tuple(policy.act(store.frames[0], "move the dot left").bins) for _ in range(20)]

    assert load_config(path)["temperature"] == 1.0
    assert decisions() == decisions(temperature=1.0), "the checkpoint's own temperature"
    assert len(set(decisions())) > 1, "an untrained head is unsure"
    assert decisions(seed=1) != decisions(seed=2)
    assert len(set(decisions(temperature=0.0))) == 1
    assert set(decisions(temperature=1e-6)) == set(decisions(temperature=0.0))


def test_a_table_tells_the_codes_that_its_action_was_made_of(tmp_path, store, labels):
    init = pretrain.train(pretrain_config(tmp_path / "init", labels, steps=2), store).checkpoint
    config = TableConfig(
        data=Path("toy"), init=init, out=tmp_path / "p", max_bins=8, temperature=1.0
    )
    policy = Policy.load(path := table.fit(config, store))
    table_QA, bins = load_vla(path).table_QA.numpy(), ActionBins.from_dict(policy.config["bins"])
    codes = set()
    for _ in range(20):
        step = policy.act(store.frames[0], "move the dot left")
        (code,) = step.latent
        assert np.array_equal(step.bins, bins.encode(table_QA[code] + table_QA[-1]))
        codes.add(code)
    assert len(codes) > 1, "it is sampled"


@pytest.mark.parametrize("temperature", [-1.0, float("nan"), float("inf")])
def test_impossible_temperatures_are_refused(tmp_path, store, temperature):
    path = finetune.train(finetune_config(tmp_path, None, steps=2), store).checkpoint
    with pytest.raises(ContractError, match="temperature"):
        Policy.load(path, temperature=temperature)


def test_unknown_words_and_long_sentences_are_no_error(tmp_path, store):
    path = finetune.train(finetune_config(tmp_path, None), store).checkpoint
    policy = Policy.load(path)
    policy.act(store.frames[0], "zzz " * 40)
    policy.act(store.frames[0], "?!")


def test_labels_of_other_frames_are_refused(tmp_path, labels):
    with pytest.raises(DataError, match="lapa laq label"):
        pretrain.train(pretrain_config(tmp_path, labels), toy_store(episodes=5))
    with pytest.raises(DataError, match="lapa laq label"):  # as many, as long, but other pictures
        pretrain.train(pretrain_config(tmp_path, labels), toy_store(seed=1))


def test_labels_fit_the_same_frames_at_another_size(store, labels):
    check_labels(LatentLabels.load(labels), store.at_size(24))


def test_labels_of_another_checkpoint_are_refused(tmp_path, store, labels):
    model = ConvLaq(laq := ConvLaqConfig(width=8, codes=4))
    other = save_laq(tmp_path / "laq", model, laq, gap_s=0.4)
    made_by = load_config(other)["weights_sha256"]
    with pytest.raises(DataError, match=f"checkpoint 000000000000, .* is {made_by[:12]}"):
        pretrain.train(pretrain_config(tmp_path / "run", labels, laq=other), store)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (partial(PretrainConfig, labels=Path("toy")), "max_episodes", -1),
        (partial(PretrainConfig, labels=Path("toy")), "workers", -1),
        (partial(PretrainConfig, labels=Path("toy")), "mean_weight", float("nan")),
        (FinetuneConfig, "episodes", -1),
        (FinetuneConfig, "light", -0.1),
        (FinetuneConfig, "temperature", float("inf")),
        (TableConfig, "episodes", -1),
        (TableConfig, "temperature", -1.0),
    ],
)
def test_less_than_nothing_is_refused_and_what_is_no_number(kind, name, value):
    """Regressions pinned: -1 episodes were all but one; a policy was trained whose temperature nobody can use."""
    with pytest.raises(ContractError, match=f"{name} is {value}; allowed is 0 and more"):
        kind(data=Path("toy"), init=Path("toy"), **{name: value})


def test_too_few_episodes_are_refused(tmp_path, store):
    with pytest.raises(DataError, match="has 12"):
        finetune.train(finetune_config(tmp_path, None, episodes=50), store)


def test_a_smaller_draw_is_part_of_a_larger_one(store):
    small = finetune.labelled_subset(store, 3, seed=1)
    large = finetune.labelled_subset(store, 9, seed=1)
    assert np.array_equal(small.frames, large.frames[: len(small.frames)])


def test_a_policy_is_no_latent_action_model(tmp_path, store):
    from lapa_core.laq.checkpoint import load_laq

    path = finetune.train(finetune_config(tmp_path, None), store).checkpoint
    with pytest.raises(CheckpointError, match="laq"):
        load_laq(path)
