# SPDX-License-Identifier: Apache-2.0
"""The map from our state dict to the release's keys."""

from __future__ import annotations

import pytest
import torch

from lapa_core.errors import CheckpointError
from lapa_core.vla.info import VlaInfoConfig, counted_model
from lapa_core.vla.lwm.config import LwmConfig
from lapa_core.vla.lwm.release_names import ReleaseTensor, release_tensors
from tests.vla.lwm_toys import CODES, toy_lwm


@pytest.mark.parametrize("head", ["latent", "action"])
def test_every_parameter_of_the_7b_model_has_its_place(head):
    model = counted_model(VlaInfoConfig(preset="lapa_7b", head=head))
    ours = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not name.startswith("vqgan.")
    }
    codes = CODES if head == "latent" else None
    places = list(release_tensors(LwmConfig(), codes, action=head == "action"))
    assert {place.name: place.shape for place in places} == ours
    assert len({(place.key, place.layer) for place in places}) == len(places)


def test_the_7b_models_keys_and_shapes_are_the_tables():
    """facts/lapa.md 2.8."""
    places = {place.name: place for place in release_tensors(LwmConfig(), 8, action=True)}
    assert sum(place.parameters for place in release_tensors(LwmConfig(), 8)) == 6_807_687_168
    decoder = "transformer/h/scan_decoder"
    expected = {
        "tables.text.weight": ("transformer/wte/embedding", (32000, 4096), None),
        "tables.vision.weight": ("transformer/vte/embedding", (8448, 4096), None),
        "tables.latent.weight": ("transformer/dte/embedding", (8, 4096), None),
        "tables.action.weight": ("transformer/ate/embedding", (256, 4096), None),
        "layers.31.self_attn.q_proj.weight": (f"{decoder}/attention/wq/kernel", (4096, 4096), 31),
        "layers.0.mlp.gate_proj.weight": (f"{decoder}/feed_forward/w1/kernel", (4096, 11008), 0),
        "layers.0.mlp.up_proj.weight": (f"{decoder}/feed_forward/w3/kernel", (4096, 11008), 0),
        "layers.0.mlp.down_proj.weight": (f"{decoder}/feed_forward/w2/kernel", (11008, 4096), 0),
        "layers.7.input_layernorm.weight": (f"{decoder}/attention_norm/kernel", (4096,), 7),
        "layers.7.post_attention_layernorm.weight": (f"{decoder}/ffn_norm/kernel", (4096,), 7),
        "norm.weight": ("transformer/ln_f/kernel", (4096,), None),
        "heads.text.weight": ("lm_head/kernel", (4096, 32000), None),
        "heads.vision.weight": ("vision_head/kernel", (4096, 8448), None),
        "heads.latent.weight": ("delta_head/kernel", (4096, 8), None),
        "heads.action.weight": ("action_head/kernel", (4096, 256), None),
    }
    found = {
        name: ("/".join(places[name].key), places[name].release_shape, places[name].layer)
        for name in expected
    }
    assert found == expected


def test_conversion_puts_even_channels_of_each_head_first():
    place = ReleaseTensor(name="q", shape=(8, 3), key=("wq",), layout="rotary")
    assert place.release_shape == (3, 8)
    channels = torch.arange(8).expand(3, 8)
    assert place.convert(channels, heads=2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    half = place.convert(channels.to(torch.bfloat16), heads=2)
    assert half.dtype == torch.bfloat16


def test_conversion_of_the_other_layouts():
    linear = ReleaseTensor(name="w", shape=(4, 3), key=("w",), layout="linear")
    array = torch.randn(3, 4)
    assert torch.equal(linear.convert(array, heads=1), array.T)
    conv = ReleaseTensor(name="c", shape=(5, 4, 3, 2), key=("c", "kernel"), layout="conv")
    kernel = torch.randn(3, 2, 4, 5)
    assert conv.convert(kernel, heads=1)[4, 3, 2, 1] == kernel[2, 1, 3, 4]
    same = ReleaseTensor(name="n", shape=(4,), key=("n",))
    assert torch.equal(same.convert(torch.ones(4), heads=1), torch.ones(4))
    with pytest.raises(
        CheckpointError, match=r"c/kernel has shape \(5, 4, 3, 2\), not \(3, 2, 4, 5\)"
    ):
        conv.convert(torch.randn(5, 4, 3, 2), heads=1)


def test_a_toy_models_places_are_its_state_dict():
    model = toy_lwm()
    names = [name for name in model.state_dict() if not name.startswith("vqgan.")]
    places = [place.name for place in release_tensors(model.config, CODES, action=True)]
    assert sorted(names) == sorted(places)
