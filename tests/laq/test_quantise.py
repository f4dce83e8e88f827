# SPDX-License-Identifier: Apache-2.0
"""Quantisers: true counts, dead codes come back, a collapse is noticed; noise that knows no ranks."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from lapa_core.errors import ContractError
from lapa_core.laq.checkpoint import build_laq, describe, load_laq, save_laq
from lapa_core.laq.config import ConvLaqConfig
from lapa_core.laq.kmeans import kmeans
from lapa_core.laq.quantise import QUANTISERS, build_quantiser
from lapa_core.laq.quantise.counts import JOINT_CELLS, UsageCounts
from lapa_core.laq.quantise.fsq import levels
from lapa_core.laq.quantise.noise import keyed_normal, noise_key
from lapa_core.laq.quantise.nsvq import Nsvq
from lapa_core.laq.usage import code_usage, warn_if_collapsed
from tests.toy import TOY_PATCH

TRAINED = sorted(name for name in QUANTISERS if name != "none")


def nsvq(codebook: list[list[float]], tokens: int = 1) -> Nsvq:
    quantiser = Nsvq(codes=len(codebook), dim=len(codebook[0]), tokens=tokens)
    with torch.no_grad():
        quantiser.codebooks.copy_(torch.tensor(codebook))
    return quantiser


def test_noise_substitution_keeps_the_error_length_and_evaluation_gives_the_code():
    torch.manual_seed(0)
    quantiser = Nsvq(codes=4, dim=6, tokens=3)
    x = torch.randn(5, 3, 6)
    noisy = quantiser(x)
    nearest = quantiser.codebooks[noisy.codes_BK]
    torch.testing.assert_close((noisy.vectors_BKD - x).norm(dim=-1), (nearest - x).norm(dim=-1))
    quantiser.eval()
    assert torch.equal(quantiser(x).vectors_BKD, nearest)


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_the_tokens_and_the_codes_name_their_vectors(name):
    torch.manual_seed(0)
    quantiser = build_quantiser(name, codes=8, dim=6, tokens=2)
    x = torch.randn(16, 2, 6, requires_grad=True)
    (quantiser(x).vectors_BKD.square().sum() + quantiser.auxiliary_loss()).backward()
    assert x.grad.abs().sum() > 0
    if name == "nsvq":
        assert quantiser.codebooks.grad.abs().sum() > 0
    quantised = quantiser.eval()(x)
    assert quantised.codes_BK.dtype == torch.int64
    torch.testing.assert_close(quantiser.vectors(quantised.codes_BK), quantised.vectors_BKD)
    torch.testing.assert_close(
        quantiser.centres()[quantised.codes_BK], quantiser.vectors(quantised.codes_BK)
    )


def test_every_assignment_is_counted_and_saved():
    """The release adds at most one per batch, however often a code is used."""
    quantiser = nsvq([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], tokens=2)
    quantiser(torch.tensor([[[0.1, 0.0], [9.0, 0.0]], [[9.5, 0.0], [11.0, 0.0]]]))
    quantiser.counts.merge()
    quantiser.eval()(torch.zeros(4, 2, 2))
    quantiser.counts.merge()
    state = quantiser.state_dict()
    assert state["counts.codes_KN"].tolist() == [[1, 1, 0], [0, 2, 0]]
    assert state["counts.codes_KN"].dtype == torch.int64
    assert state["counts.joint_J"].nonzero()[:, 0].tolist() == [1, 4], "tuples (0, 1) and (1, 1)"


@pytest.mark.parametrize("name", TRAINED)
def test_labelling_in_the_midst_of_training_leaves_no_trace(name):
    torch.manual_seed(0)
    quantiser = build_quantiser(name, codes=8, dim=6, tokens=2)
    x = torch.randn(16, 2, 6)
    before = {key: value.clone() for key, value in quantiser.named_buffers()}
    codes = quantiser.assign(x)
    assert all(torch.equal(value, before[key]) for key, value in quantiser.named_buffers())
    assert torch.equal(codes, quantiser.eval()(x).codes_BK)


def test_more_tuples_than_cells_share_them_evenly():
    counts = UsageCounts(tokens=12, codes=8)
    assert len(counts.joint_J) == JOINT_CELLS
    counts.add(torch.randint(8, (4000, 12), generator=torch.Generator().manual_seed(0)))
    counts.merge()
    assert counts.read().joint_count > 3800


def test_tokens_far_from_all_codes_are_shared_out():
    """As at the start of training: one code is the nearest of all tokens, which lie close together."""
    quantiser = nsvq([[5.0, 0.0], [6.0, 0.0], [0.0, 7.0], [0.0, -8.0]])
    tokens = 0.01 * torch.randn(256, 1, 2, generator=torch.Generator().manual_seed(0))
    assert len(quantiser(tokens).codes_BK.unique()) == 1
    assert quantiser.after_step(10, 100)["codes/revived"] == 3
    assert len(quantiser(tokens).codes_BK.unique()) == 3, "the far one is left alone, and next"
    assert quantiser.after_step(20, 100)["codes/revived"] >= 1
    assert len(quantiser(tokens).codes_BK.unique()) >= 3


def test_dead_codes_move_to_tokens_and_counting_starts_anew():
    quantiser = nsvq([[0.0, 0.0], [1.0, 0.0], [50.0, 50.0], [-50.0, 50.0]])
    torch.manual_seed(0)
    tokens = torch.rand(64, 1, 2)
    quantiser(tokens)
    metrics = quantiser.after_step(10, 100)
    assert metrics["codes/revived"] == 2
    assert metrics["codes/joint"] == 2
    assert metrics["perplexity/token0"] < 2.1
    assert not quantiser.counts.codes_KN.any()
    assert torch.cdist(quantiser.codebooks[2:], tokens[:, 0]).min(dim=1).values.max() == 0
    assert quantiser.after_step(20, 100) == metrics, "nothing was counted since"
    quantiser.codebooks.data[2:] += 100.0
    quantiser(torch.rand(64, 1, 2))
    assert quantiser.after_step(100, 105)["codes/revived"] == 0, "the last tenth heals no more"


def test_moving_averages_follow_their_tokens_and_revive():
    quantiser = build_quantiser("vq_ema", codes=4, dim=2, tokens=1)
    quantiser.codebook_ND.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [50.0, 50.0], [-50.0, 50.0]]))
    torch.manual_seed(0)
    x = torch.rand(64, 1, 2)
    chosen = quantiser(x).codes_BK[:, 0]
    sizes = 0.99 + 0.01 * torch.bincount(chosen, minlength=4)
    means = [
        (0.99 * code + 0.01 * x[chosen == i, 0].sum(dim=0)) / sizes[i]
        for i, code in enumerate(quantiser.codebook_ND.clone())
    ]
    quantiser.after_step(9, 100)
    torch.testing.assert_close(quantiser.codebook_ND[:2], torch.stack(means)[:2])
    assert quantiser.codebook_ND[2:].abs().max() == 50.0, "unused codes stay"
    assert quantiser.after_step(10, 100)["codes/revived"] == 2
    assert quantiser.centres().abs().max() < 9


def test_the_alarm_sounds_once_until_the_codes_recover(caplog):
    quantiser = nsvq([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    collapsed = torch.zeros(64, 1, 2)
    healthy = torch.rand(64, 1, 2, generator=torch.Generator().manual_seed(0))
    heard = []
    for step, x in enumerate([collapsed, collapsed, healthy, collapsed], start=1):
        quantiser(x)
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            quantiser.after_step(100 * step, 100)
        heard.append(len(caplog.records))
    assert heard == [1, 0, 0, 1]
    assert "token 0 has perplexity 1.00 of 4" in caplog.text


def test_noise_is_normal_and_that_of_the_joint_batch():
    key = torch.tensor(noise_key(seed=3, step=17))
    joint = keyed_normal(torch.empty(2048, 4, 32), key, 0)
    halves = [keyed_normal(torch.empty(1024, 4, 32), key, first) for first in (0, 1024)]
    assert torch.equal(torch.cat(halves), joint)
    flat = joint.flatten().double()
    moments = [flat.mean(), flat.var(), (flat**3).mean(), (flat**4).mean()]
    assert np.allclose(moments, [0, 1, 0, 3], atol=0.05)
    correlation = torch.corrcoef(joint.flatten(0, 1).T) - torch.eye(32)
    assert correlation.abs().max() < 0.06
    other = keyed_normal(joint, torch.tensor(noise_key(seed=3, step=18)), 0)
    assert abs(float((joint * other).mean())) < 0.01


@pytest.mark.parametrize(
    ("codes", "expected"),
    [(7, [7]), (8, [4, 2]), (64, [8, 8]), (240, [8, 6, 5]), (1000, [8, 5, 5, 5])],
)
def test_levels_of_finite_scalars(codes, expected):
    assert levels(codes) == expected


def test_a_number_that_is_no_grid_is_refused():
    with pytest.raises(ContractError, match="codes is 22"):
        levels(22)


def test_a_reversed_token_gets_the_mirrored_code():
    quantiser = build_quantiser("fsq", codes=15, dim=2, tokens=1).eval()
    x = torch.randn(32, 1, 2, generator=torch.Generator().manual_seed(0))
    there, back = quantiser(x).codes_BK, quantiser(-x).codes_BK
    assert torch.equal(there + back, torch.full_like(there, 14))
    assert quantiser.revive_dead(0) == 0


@pytest.mark.parametrize("quantiser", sorted(QUANTISERS))
@pytest.mark.parametrize(
    "config", [ConvLaqConfig(width=8, codes=8), TOY_PATCH], ids=["conv", "patch"]
)
def test_every_design_trains_with_every_quantiser_and_survives_the_disk(
    tmp_path, config, quantiser
):
    torch.manual_seed(0)
    config = replace(config, quantiser=quantiser)
    model = build_laq(config)
    x0, x1 = torch.rand(2, 8, 3, 32, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(4):
        model.set_step(seed=0, step=step)
        loss = torch.nn.functional.mse_loss(model.predict(x0, x1, x0), model.target(x1))
        optimizer.zero_grad()
        (loss + model.auxiliary_loss()).backward()
        optimizer.step()
        model.after_step(step, 4)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.eval()
    with torch.no_grad():
        model.fit_codebook(model.encode_pair(x0, x1)[1], seed=0)
        codes, vectors = model.encode_pair(x0, x1)
        image = model.render(x0, codes)
    assert codes.shape == vectors.shape[:2] == (8, model.tokens)
    assert model.centres().shape == (8, vectors.shape[2])
    loaded, facts = load_laq(save_laq(tmp_path / "checkpoint", model, config))
    assert facts["model"] == describe(config)
    with torch.no_grad():
        assert torch.equal(loaded.encode_pair(x0, x1)[0], codes)
        assert torch.equal(loaded.render(x0, codes), image)


def test_a_conv_checkpoint_from_before_the_quantisers_loads():
    model = build_laq(ConvLaqConfig(width=8, codes=4))
    model.fit_codebook(torch.randn(20, 1, 3), seed=0)
    state = model.state_dict()
    state["codebook_ND"] = state.pop("quantiser.codebook_ND")
    fresh = build_laq(ConvLaqConfig(width=8, codes=4))
    fresh.load_state_dict(state, strict=True)
    assert np.array_equal(fresh.centres(), model.centres())


def test_a_collapse_is_noticed(caplog):
    codes = np.zeros((500, 2), np.int64)
    codes[:, 0] = np.arange(500) % 8
    with caplog.at_level(logging.WARNING):
        assert warn_if_collapsed(code_usage(codes, 8))
    assert "token 1 has perplexity 1.00 of 8" in caplog.text
    caplog.clear()
    assert not warn_if_collapsed(code_usage(np.random.default_rng(0).integers(0, 8, (500, 2)), 8))
    assert not caplog.records


def test_perplexity_of_equal_use_is_the_number_of_codes():
    usage = code_usage(np.array([[0, 0], [1, 0], [2, 0], [3, 0]]), 4)
    assert usage.perplexity_per_token == pytest.approx((4.0, 1.0))
    assert usage.joint_perplexity == pytest.approx(4.0)
    assert usage.joint_count == 4


def test_kmeans_finds_separate_clusters_and_survives_few_points():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centres.repeat(50, 1) + 0.1 * torch.randn(
        150, 2, generator=torch.Generator().manual_seed(0)
    )
    found = kmeans(points, 3, seed=0)
    assert torch.cdist(centres, found).min(dim=1).values.max() < 0.2
    assert len(kmeans(torch.ones(20, 2), 8, seed=0)) == 1
