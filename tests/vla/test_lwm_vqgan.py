# SPDX-License-Identifier: Apache-2.0
"""The VQGAN against its description written out plainly, from the release's keys and layouts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lapa_core.vla.lwm.config import LWM_DEBUG, VqganConfig
from lapa_core.vla.lwm.release_names import vqgan_tensors
from lapa_core.vla.lwm.vqgan import Vqgan, make_vq_model

CONFIG = LWM_DEBUG.vqgan
SIDE = 16


@pytest.fixture(scope="module")
def vqgan():
    torch.manual_seed(0)
    made = Vqgan(CONFIG).eval()
    for name, parameter in made.named_parameters():
        scale, at = (0.3, 1.0) if "norm" in name and name.endswith("weight") else (0.2, 0.0)
        torch.nn.init.normal_(parameter, at, scale)
    return made


@pytest.fixture(scope="module")
def params(vqgan):
    """The weights as Flax stores them: convolutions (height, width, in, out)."""
    state = vqgan.model.state_dict()
    layouts = {p.key: (state[p.name].permute(2, 3, 1, 0) if p.layout == "conv" else state[p.name])
               for p in vqgan_tensors(CONFIG)}  # fmt: skip
    return {"/".join(key): array for key, array in layouts.items()}


class Plain:
    """facts/lapa.md 2.2, layer by layer; maps are (B, C, H, W)."""

    def __init__(self, params):
        self.params = params

    def conv(self, x, key, pad=1, stride=1):
        kernel = self.params[f"{key}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, self.params[f"{key}/bias"], stride, pad)

    def norm(self, x, key):
        groups = x.unflatten(1, (CONFIG.groups, -1))
        mean = groups.mean(dim=(2, 3, 4), keepdim=True)
        spread = groups.var(dim=(2, 3, 4), keepdim=True, unbiased=False)
        x = ((groups - mean) / (spread + 1e-6).sqrt()).flatten(1, 2)
        scale, bias = (self.params[f"{key}/{part}"][:, None, None] for part in ("scale", "bias"))
        return x * scale + bias

    def resnet(self, x, key):
        def swish(y):
            return y * torch.sigmoid(y)

        y = self.conv(swish(self.norm(x, f"{key}/GroupNorm_0")), f"{key}/Conv_0")
        y = self.conv(swish(self.norm(y, f"{key}/GroupNorm_1")), f"{key}/Conv_1")
        if f"{key}/Conv_2/kernel" in self.params:
            x = self.conv(x, f"{key}/Conv_2", pad=0)
        return x + y

    def ends(self, x, half):
        x = self.norm(x, f"{half}/GroupNorm_0")
        return self.conv(x * torch.sigmoid(x), f"{half}/Conv_1")

    def middle(self, x, half):
        return self.resnet(
            self.resnet(x, f"{half}/MidBlock_0/ResnetBlock_0"), f"{half}/MidBlock_0/ResnetBlock_1"
        )

    def encode(self, x):
        levels = len(CONFIG.channels)
        x = self.conv(x, "encoder/Conv_0")
        for level in range(levels):
            key = f"encoder/DownsamplingBlock_{level}"
            for block in range(CONFIG.blocks):
                x = self.resnet(x, f"{key}/ResnetBlock_{block}")
            if level < levels - 1:
                x = self.conv(F.pad(x, (0, 1, 0, 1)), f"{key}/Downsample_0/Conv_0", pad=0, stride=2)
        return self.conv(self.ends(self.middle(x, "encoder"), "encoder"), "quant_conv", pad=0)

    def decode(self, x):
        levels = len(CONFIG.channels)
        x = self.conv(self.conv(x, "post_quant_conv", pad=0), "decoder/Conv_0")
        x = self.middle(x, "decoder")
        for level in range(levels):
            key = f"decoder/UpsamplingBlock_{level}"
            for block in range(CONFIG.blocks + 1):
                x = self.resnet(x, f"{key}/ResnetBlock_{block}")
            if level < levels - 1:
                x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self.conv(x, f"{key}/Upsample_0/Conv_0")
        return self.ends(x, "decoder")


def test_ids_are_the_nearest_codes_row_by_row(vqgan, params):
    images = torch.rand(3, 3, SIDE, SIDE)
    with torch.no_grad():
        latents = Plain(params).encode(images * 255 / 127.5 - 1)
    book = params["quantize/embeddings"]
    expected = [
        [
            ((latents[b, :, row, column] - book) ** 2).sum(-1).argmin().item()
            for row in range(4)
            for column in range(4)
        ]
        for b in range(3)
    ]
    ids = vqgan.ids(images)
    assert ids.dtype == torch.int64
    assert ids.tolist() == expected
    assert len(ids.unique()) > 3


def test_images_are_what_the_ids_stand_for(vqgan, params):
    ids = torch.randint(CONFIG.codes, (2, 16))
    grid = params["quantize/embeddings"][ids].view(2, 4, 4, -1).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = (Plain(params).decode(grid).clamp(-1, 1) + 1) / 2
    images = vqgan.images(ids)
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=1e-4)
    assert ((images > 0) & (images < 1)).float().mean() > 0.1


def test_the_released_size_is_diffusers_model_to_the_parameter():
    """facts/lapa.md: 146,244,675 parameters x 4 bytes are the 585 MB of the release's file."""
    with torch.device("meta"):
        model = make_vq_model(VqganConfig())
    counts = [
        sum(p.numel() for p in part.parameters()) for part in (model, model.encoder, model.decoder)
    ]
    assert counts == [146_244_675, 58_693_568, 87_018_499]
    norms = [m for m in model.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {(norm.num_groups, norm.eps) for norm in norms} == {(32, 1e-6)}
    assert not [
        name for name, module in model.named_modules() if "Attention" in type(module).__name__
    ]
    assert VqganConfig().cell_px == 16


@pytest.mark.parametrize("config", [VqganConfig(), CONFIG])
def test_every_tensor_has_its_place_in_the_release(config):
    with torch.device("meta"):
        state = make_vq_model(config).state_dict()
    places = {place.name: place for place in vqgan_tensors(config)}
    assert {name: tuple(t.shape) for name, t in state.items()} == {
        n: p.shape for n, p in places.items()
    }
    assert len({place.key for place in places.values()}) == len(places)


def test_it_stays_float32_and_never_learns(vqgan):
    images = torch.rand(1, 3, SIDE, SIDE)
    before = vqgan.ids(images)
    model = torch.nn.ModuleList([vqgan]).to(torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in model.parameters())
    assert torch.equal(vqgan.ids(images), before)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vqgan.ids(images), before)
    moved = Vqgan(CONFIG).to("meta", torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in moved.parameters()} == {("meta", torch.float32)}
