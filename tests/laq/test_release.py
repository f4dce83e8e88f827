# SPDX-License-Identifier: Apache-2.0
"""The authors' released network: names, shapes, strict loading, and its quirks against straightforward re-derivations.

The whole forward pass was compared once with the authors' code at commit 46aca51 (its CUDA device replaced), at toy
width with random weights: the same codes, images equal within 2e-6.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lapa_core.errors import CheckpointError
from lapa_core.laq.checkpoint import build_laq, load_laq, save_laq
from lapa_core.laq.config import PatchLaqConfig
from lapa_core.laq.release import ReleaseLaq, load_release
from tests.toy import TOY_PATCH

CONFIG = replace(TOY_PATCH, code_dim=32, temporal_depth=2, compat="release")


def toy() -> ReleaseLaq:
    torch.manual_seed(0)
    return ReleaseLaq(CONFIG).eval()


@pytest.fixture(scope="module")
def paper() -> ReleaseLaq:
    with torch.device("meta"):
        return ReleaseLaq(PatchLaqConfig(compat="release"))


def test_it_has_the_parameters_of_the_release(paper):
    parameters = sum(parameter.numel() for parameter in paper.parameters())
    assert parameters == 343_796_080
    values = sum(tensor.numel() for tensor in paper.state_dict().values())
    assert values - parameters == 68_608, "the zero shifts of its norms"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("to_patch_emb_first_frame.1.weight", (3072,)),
        ("to_patch_emb_first_frame.2.weight", (1024, 3072)),
        ("to_patch_emb_first_frame.3.bias", (1024,)),
        ("spatial_rel_pos_bias.net.0.0.weight", (1024, 2)),
        ("spatial_rel_pos_bias.net.1.0.weight", (1024, 1024)),
        ("spatial_rel_pos_bias.net.2.bias", (16,)),
        ("enc_spatial_transformer.layers.7.0.dsconv.weight", (1024, 1, 3, 3, 3)),
        ("enc_spatial_transformer.layers.0.1.context_norm.beta", (1024,)),
        ("enc_temporal_transformer.layers.3.1.null_kv", (16, 0, 64)),
        ("enc_temporal_transformer.layers.3.1.q_scale", (64,)),
        ("enc_temporal_transformer.layers.3.3.0.bias", (1024,)),
        ("enc_temporal_transformer.layers.3.3.1.weight", (5460, 1024)),
        ("dec_spatial_transformer.layers.7.2.null_kv", (16, 4, 64)),
        ("dec_spatial_transformer.layers.7.2.to_kv.weight", (2048, 1024)),
        ("dec_spatial_transformer.layers.7.3.4.weight", (1024, 2730)),
        ("dec_spatial_transformer.norm_out.gamma", (1024,)),
        ("vq.codebooks", (8, 32)),
        ("vq.project_in.weight", (32, 1024)),
        ("vq.project_out.bias", (1024,)),
        ("vq.cnn_encoder.0.weight", (32, 32, 3, 3)),
        ("vq.cnn_encoder.2.bias", (32,)),
        ("to_pixels_first_frame.0.weight", (3072, 1024)),
    ],
)
def test_it_has_the_names_and_shapes_of_the_release(paper, name, shape):
    assert tuple(paper.state_dict()[name].shape) == shape


def test_its_state_loads_with_and_without_the_prefix_of_ddp():
    model, fresh = toy(), build_laq(CONFIG)
    state = model.state_dict()
    load_release(fresh, {f"module.{name}": tensor for name, tensor in state.items()})
    assert all(torch.equal(fresh.state_dict()[name], state[name]) for name in state)


@pytest.mark.parametrize("name", ["vq.codebooks", "enc_temporal_transformer.norm_out.beta"])
def test_a_missing_or_surplus_key_is_named(name):
    state = toy().state_dict()
    tensor = state.pop(name)
    with pytest.raises(CheckpointError, match=f"missing {name}"):
        load_release(toy(), state)
    with pytest.raises(CheckpointError, match=f"surplus {name}.extra"):
        load_release(toy(), {**state, name: tensor, f"{name}.extra": tensor})
    with pytest.raises(CheckpointError, match=rf"{name} has shape \(3,\)"):
        load_release(toy(), {**state, name: torch.zeros(3)})


def test_q1_every_decoder_token_holds_a_part_of_every_code():
    model = toy()
    code_of_channel = torch.full((4, 32), -1)
    model.vq.project_out = torch.nn.Identity()
    for code in range(4):
        vectors = torch.zeros(1, 4, 32)
        vectors[0, code] = 1.0
        code_of_channel[model.vq.widen(vectors)[0] > 0] = code
    assert code_of_channel.tolist() == [[c // 8 for c in range(32)]] * 4
    ramp = torch.arange(128.0).view(1, 4, 32)
    assert model.vq.widen(ramp)[0, 1, :3].tolist() == [1.0, 5.0, 9.0], "a stride of 4"


def test_q2_the_temporal_convolution_takes_places_for_times():
    """Token (place p, time t) lies at 2 p + t of the sequence, and is convolved as frame (2 p + t) // 64."""
    torch.manual_seed(0)
    position = toy().enc_temporal_transformer.layers[0]["0"]
    x = torch.randn(64, 2, 16)
    flat = x.reshape(128, 16)
    grid = torch.zeros(1, 16, 2, 8, 8)
    for n in range(128):
        grid[0, :, n // 64, n % 64 // 8, n % 8] = flat[n]
    out = position.dsconv(F.pad(grid, (1, 1, 1, 1, 2, 0)))
    expected = torch.stack([out[0, :, n // 64, n % 64 // 8, n % 8] for n in range(128)])
    torch.testing.assert_close(position(x, 2), expected.view(64, 2, 16))


def test_q3_the_first_frame_sees_the_second():
    model = toy()
    seen = []
    model.enc_temporal_transformer.register_forward_hook(lambda *call: seen.append(call[2]))
    x0, x1, other = torch.rand(3, 1, 3, 32, 32)
    with torch.no_grad():
        model.motion(x0, x1)
        model.motion(x0, other)
    first, changed = (x.unflatten(0, (1, 64))[:, :, 0] for x in seen)
    assert (first - changed).abs().min(dim=-1).values.max() > 1e-4


def test_q4_keys_and_values_are_not_normalised():
    """A scale of the input is lost in the queries, and in the keys by their own norm, but not in the values."""
    attention = toy().enc_temporal_transformer.layers[0]["1"]
    x = torch.randn(3, 5, 16)
    heads = (3, 5, 2, 8)
    q = F.normalize(attention.to_q(F.layer_norm(x, (16,))).view(heads), dim=-1)
    k, v = (part.reshape(heads) for part in attention.to_kv(x).chunk(2, dim=-1))
    weights = (8.0 * torch.einsum("bihd,bjhd->bhij", q, F.normalize(k, dim=-1))).softmax(dim=-1)
    expected = attention.to_out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))
    torch.testing.assert_close(attention(x), expected)
    torch.testing.assert_close(attention(3.0 * x), 3.0 * expected, atol=1e-4, rtol=1e-4)


def test_null_keys_and_values_alternate():
    attention = toy().dec_spatial_transformer.layers[0]["2"]
    x, context = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
    q = F.normalize(attention.to_q(F.layer_norm(x, (16,))).view(2, 5, 2, 8), dim=-1)
    kv = attention.to_kv(F.layer_norm(context, (16,))).chunk(2, dim=-1)
    k, v = (part.reshape(2, 4, 2, 8) for part in kv)
    null_HND = attention.null_kv
    k = torch.cat([null_HND[:, [0, 2]].transpose(0, 1).expand(2, -1, -1, -1), k], dim=1)
    v = torch.cat([null_HND[:, [1, 3]].transpose(0, 1).expand(2, -1, -1, -1), v], dim=1)
    weights = (8.0 * torch.einsum("bihd,bjhd->bhij", q, F.normalize(k, dim=-1))).softmax(dim=-1)
    expected = attention.to_out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))
    torch.testing.assert_close(attention(x, context=context), expected)


def test_it_trains_and_survives_the_disk_with_exactly_its_names(tmp_path):
    model = toy().train()
    x0, x1 = torch.rand(2, 4, 3, 32, 32)
    model.set_step(seed=0, step=0)
    F.mse_loss(model.predict(x0, x1, x0), x1).backward()
    assert model.vq.codebooks.grad.abs().sum() > 0
    torch.optim.Adam(model.parameters(), lr=1e-3).step()
    assert "perplexity/token3" in model.after_step(10, 100)
    loaded, facts = load_laq(save_laq(tmp_path / "checkpoint", model, CONFIG))
    assert facts["model"]["compat"] == "release"
    assert sorted(loaded.state_dict()) == sorted(toy().state_dict())
    model.eval()
    with torch.no_grad():
        codes, _ = model.encode_pair(x0, x1)
        assert torch.equal(loaded.encode_pair(x0, x1)[0], codes)
        assert torch.equal(loaded.render(x0, codes), model.render(x0, codes))
