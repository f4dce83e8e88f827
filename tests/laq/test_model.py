# SPDX-License-Identifier: Apache-2.0
"""The corrected model: causal in time, tokens in their places, any grid and any number of tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lapa_core.errors import ContractError
from lapa_core.laq.blocks import PositionBias, causal_convolution
from lapa_core.laq.config import PatchLaqConfig
from lapa_core.laq.model import PatchLaq
from tests.toy import TOY_PATCH


def toy(**changes) -> PatchLaq:
    torch.manual_seed(0)
    return PatchLaq(replace(TOY_PATCH, **changes)).eval()


def encoded(model: PatchLaq, x_BTPE: torch.Tensor) -> torch.Tensor:
    """Both encoders, as `motion` runs them."""
    for block in model.spatial:
        x_BTPE = block(x_BTPE, model.bias())
    for block in model.temporal:
        x_BTPE = block(x_BTPE)
    return x_BTPE


def test_features_of_the_first_frame_do_not_see_the_second():
    """The paper's encoder is causal; the release's is not (facts, quirk Q3)."""
    model = toy(spatial_depth=2, temporal_depth=2)
    x = torch.randn(3, 2, 64, 16)
    changed = x.clone()
    changed[:, 1] += torch.randn(3, 64, 16)
    before, after = encoded(model, x), encoded(model, changed)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_the_temporal_convolution_sees_only_its_neighbours():
    """The release's sees the two frames' upper halves as one frame (facts, quirk Q2)."""
    position = toy().temporal[0].position
    x = torch.zeros(1, 2, 64, 16)
    x[0, 0, 8 * 3 + 5] = 1.0
    seen = (position(x) - position(torch.zeros_like(x))).abs().sum(-1).unflatten(2, (8, 8))
    near = torch.zeros(8, 8, dtype=torch.bool)
    near[2:5, 4:7] = True
    assert ((seen[0] > 0) == near).all(), "in its own frame and in the next"


def test_the_convolution_is_the_causal_part_of_three_taps():
    torch.manual_seed(0)
    full = nn.Conv3d(6, 6, 3, groups=6)
    x = torch.randn(2, 2, 5, 5, 6)
    padded = F.pad(x.movedim(-1, 1), (1, 1, 1, 1, 2, 0))
    ours = causal_convolution(x, full.weight[:, :, 2], full.weight[:, :, 1], full.bias)
    torch.testing.assert_close(ours, full(padded).movedim(1, -1))


def test_the_position_bias_is_that_of_every_pair_of_patches():
    torch.manual_seed(0)
    bias = PositionBias(heads=2, hidden=8, grid=3)
    place = torch.cartesian_prod(torch.arange(3), torch.arange(3)).float()
    apart = place[:, None] - place[None]
    expected = bias.net(apart.sign() * apart.abs().log1p()).permute(2, 0, 1)
    torch.testing.assert_close(bias(), expected)


def test_a_code_reaches_the_decoder_as_its_own_token():
    """In the release every decoder token holds a part of every code (facts, quirk Q1)."""
    model = toy()
    contexts = []
    model.decoder[0].cross.register_forward_pre_hook(
        lambda module, args, kwargs: contexts.append(kwargs["context"]), with_kwargs=True
    )
    codes = torch.zeros(2, 4, dtype=torch.int64)
    codes[1, 2] = 5
    with torch.no_grad():
        model.render(torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1), codes)
    differs = (contexts[0][0] != contexts[0][1]).any(dim=-1)
    assert differs.tolist() == [False, False, True, False]


def test_decoder_starts_from_patches_without_gradient():
    model = toy()
    model.paint(torch.rand(2, 3, 32, 32), torch.randn(2, 4, 8)).sum().backward()
    assert all(parameter.grad is None for parameter in model.embed.parameters())


def test_every_parameter_is_trained():
    model = toy().train()
    model.predict(*torch.rand(3, 4, 3, 32, 32)).square().sum().backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


def test_patches_are_put_back_where_they_were():
    model = toy()
    image = torch.rand(2, 3, 32, 32)
    patches = model.patches(image)
    assert patches.shape == (2, 64, 48)
    assert torch.equal(model.unpatch(patches, 4), image)


@pytest.mark.parametrize(
    ("patch_px", "code_tokens", "token_grid"),
    [
        (4, 1, (1, 1)),
        (4, 2, (2, 1)),
        (4, 8, (4, 2)),
        (4, 64, (8, 8)),
        (8, 6, (3, 2)),
        (2, 4, (2, 2)),
    ],
)
def test_any_grid_and_any_number_of_tokens(patch_px, code_tokens, token_grid):
    config = replace(TOY_PATCH, patch_px=patch_px, code_tokens=code_tokens)
    assert config.token_grid == token_grid
    model = PatchLaq(config).eval()
    x = torch.rand(2, 3, 32, 32)
    codes, _ = model.encode_pair(x, x)
    assert codes.shape == (2, code_tokens)
    assert model.render(x, codes).shape == x.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_px": 5}, "multiple of patch_px 5"),
        ({"heads": 3}, "no multiple of heads 3"),
        ({"dim": 0}, "dim is 0"),
        ({"code_tokens": 11}, "at most 8 of each"),
        ({"codes": 1}, "at least 2"),
        ({"decoder_depth": 0}, "decoder_depth is 0"),
        ({"compat": "release", "quantiser": "fsq"}, "compat='release' only exists with 'nsvq'"),
        ({"compat": "release", "patch_px": 8}, "8 x 8 patches"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ContractError, match=message):
        replace(TOY_PATCH, **changes)


def test_half_precision_and_compilation_change_little():
    model = toy().train()
    x0, x1 = torch.rand(2, 4, 3, 32, 32)
    with torch.no_grad():
        model.set_step(seed=0, step=0)
        full = model.predict(x0, x1, x0)
        with torch.autocast("cpu", torch.bfloat16):
            half = model.predict(x0, x1, x0)
        assert (half - full).abs().mean() < 0.02 * full.abs().mean()


@pytest.mark.slow  # torch.compile itself takes seconds to import
def test_the_graph_is_one_piece_and_stays():
    """The noise of every step goes through the same compiled graph."""
    model = toy().train()
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model.predict, backend=backend, fullgraph=True)
    x0, x1 = torch.rand(2, 4, 3, 32, 32)
    results = []
    for step in range(3):
        model.set_step(seed=0, step=step)
        results.append(compiled(x0, x1, x0).detach())
        model.set_step(seed=0, step=step)
        torch.testing.assert_close(model.predict(x0, x1, x0), results[-1])
        model.after_step(step, 3)
    assert len(graphs) == 1
    assert not torch.equal(results[0], results[1])


def test_sizes_of_the_paper():
    with torch.device("meta"):
        model = PatchLaq(PatchLaqConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 343_476_592
