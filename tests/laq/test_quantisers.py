# SPDX-License-Identifier: Apache-2.0
"""Quantisers: true counts, dead codes come back, a collapse is noticed."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from lapa_core.laq.kmeans import kmeans
from lapa_core.laq.model import PatchLaq
from lapa_core.laq.nsvq import Nsvq
from lapa_core.laq.usage import code_usage, warn_if_collapsed
from tests.toy import TOY_PATCH


def test_noise_substitution_keeps_the_error_length_and_evaluation_gives_the_code():
    torch.manual_seed(0)
    quantiser = Nsvq(codes=4, dim=6)
    x = torch.randn(5, 3, 6)
    noisy = quantiser(x)
    nearest = quantiser.codebook_ND[noisy.codes_BK]
    torch.testing.assert_close((noisy.vectors_BKD - x).norm(dim=-1), (nearest - x).norm(dim=-1))
    quantiser.eval()
    assert torch.equal(quantiser(x).vectors_BKD, nearest)


def test_gradients_reach_codes_and_inputs():
    torch.manual_seed(0)
    quantiser = Nsvq(codes=4, dim=6)
    x = torch.randn(8, 2, 6, requires_grad=True)
    quantiser(x).vectors_BKD.square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert quantiser.codebook_ND.grad.abs().sum() > 0


def test_every_assignment_is_counted():
    """The release adds at most one per batch, however often a code is used."""
    quantiser = Nsvq(codes=3, dim=2)
    with torch.no_grad():
        quantiser.codebook_ND.copy_(torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]))
    quantiser(torch.tensor([[[0.1, 0.0], [9.0, 0.0]], [[9.5, 0.0], [11.0, 0.0]]]))
    assert quantiser.usage_N.tolist() == [1, 3, 0]
    assert "usage_N" in quantiser.state_dict()


def test_unused_codes_move_to_used_ones():
    quantiser = Nsvq(codes=4, dim=2)
    with torch.no_grad():
        quantiser.codebook_ND.copy_(
            torch.tensor([[0.0, 0.0], [1.0, 0.0], [50.0, 50.0], [-50.0, 50.0]])
        )
    torch.manual_seed(0)
    quantiser(torch.rand(64, 1, 2))
    assert quantiser.replace_unused(min_share=0.1) == 2
    quantiser.usage_N.zero_()
    assert quantiser.replace_unused(min_share=0.1) == 0, (
        "nothing was counted since, so nothing may move"
    )


def test_a_collapse_is_noticed(caplog):
    codes = np.zeros((500, 2), np.int64)
    codes[:, 0] = np.arange(500) % 8
    with caplog.at_level(logging.WARNING):
        assert warn_if_collapsed(code_usage(codes, 8))
    assert "perplexity 1.00 of 8" in caplog.text
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


def test_first_frame_features_do_not_see_the_second():
    """The paper's encoder is causal; the release's is not (facts, quirk Q3)."""
    torch.manual_seed(0)
    model = PatchLaq(replace(TOY_PATCH, temporal_depth=2)).eval()
    x = torch.randn(3, 2, 16)
    changed = x.clone()
    changed[:, 1] += 1.0
    for block in model.temporal:
        x, changed = block(x), block(changed)
    assert torch.equal(x[:, 0], changed[:, 0])
    assert not torch.equal(x[:, 1], changed[:, 1])


def test_decoder_starts_from_patches_without_gradient():
    torch.manual_seed(0)
    model = PatchLaq(TOY_PATCH)
    model.paint(torch.rand(2, 3, 32, 32), torch.randn(2, 4, 8)).sum().backward()
    assert all(parameter.grad is None for parameter in model.embed.parameters())


def test_patches_are_put_back_where_they_were():
    model = PatchLaq(TOY_PATCH)
    image = torch.rand(2, 3, 32, 32)
    patches = model._patches(image)
    assert patches.shape == (2, 64, 48)
    back = torch.nn.functional.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (8, 8)), 4)
    assert torch.equal(back, image)
