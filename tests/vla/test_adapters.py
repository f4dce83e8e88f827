# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: what learns, what the checkpoint then holds, and a base in 4 bits."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lapa_core.errors import ContractError, SetupError
from lapa_core.train.parallel import whole
from lapa_core.vla import pretrain
from lapa_core.vla.adapters import adapt, merged, new_names
from lapa_core.vla.base import make_model
from lapa_core.vla.checkpoint import load_vla
from lapa_core.vla.config import FinetuneConfig, PretrainConfig, TrunkConfig
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.hf.model import HfVla
from lapa_core.vla.lwm.config import LWM_DEBUG
from lapa_core.vla.lwm.model import LwmVla
from tests.toy import toy_store
from tests.vla.together import LWM, write_toy_labels

TASKS = ("move the dot left", "move the dot up")


WIDE = replace(LWM_DEBUG, hidden=64, inter=128)
"""bitsandbytes packs blocks of 64 weights of a row."""


def toy_model(sizes=LWM_DEBUG) -> LwmVla:
    torch.manual_seed(0)
    model = LwmVla.start(sizes, TASKS)
    model.give_latent_head(2, 4)
    return model


def logits(model) -> torch.Tensor:
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    codes = torch.tensor([[0, 1], [2, 3]])
    return model.latent_logits(model.prepare(image, TASKS), codes)


def disturb(model) -> None:
    """Give the adapters an effect: fresh ones have none."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)


def test_adapters_and_heads_learn_and_nothing_else():
    model = toy_model()
    before, heads = logits(model), new_names(model)
    adapt(model, rank=4, alpha=8)
    assert torch.equal(logits(model), before), "fresh adapters change nothing"
    learn = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in learn if "lora_" not in name} == set(heads)
    assert set(heads) == {"tables.latent.weight", "heads.latent.weight"}
    layers = LWM_DEBUG.layers * 7
    assert len([name for name in learn if "lora_" in name]) == 2 * layers


def test_a_projection_of_the_state_learns_too():
    config = HfConfig(model="toy-smolvlm", image_px=32, state_dim=7)
    model = HfVla.start(config, TASKS)
    model.give_latent_head(2, 4)
    adapt(model, rank=2, alpha=2)
    learn = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {"state.weight", "state.bias"} <= learn
    assert not [name for name in learn if name.startswith("network.") and "lora_" not in name]


def test_the_merged_weights_compute_what_the_adapters_did():
    model = toy_model()
    names = model.state_dict().keys()
    adapt(model, rank=4, alpha=8)
    disturb(model)
    adapted = logits(model)
    plain = toy_model()
    assert (logits(plain) - adapted).abs().max() > 1e-2
    weights = dict(merged(model, whole))
    assert weights.keys() == names
    plain.load_state_dict(weights)
    torch.testing.assert_close(logits(plain), adapted, rtol=1e-4, atol=1e-5)


def test_a_standing_base_is_bfloat16_and_its_tokenizer_is_not():
    model = toy_model()
    adapt(model, rank=4, alpha=8, bf16=True)
    types = {name: p.dtype for name, p in model.named_parameters()}
    assert types["layers.0.mlp.up_proj.base_layer.weight"] == torch.bfloat16
    assert types["layers.0.mlp.up_proj.lora_A.default.weight"] == torch.float32
    assert types["heads.latent.weight"] == torch.float32
    assert all(kind == torch.float32 for name, kind in types.items() if name.startswith("vqgan."))


def test_a_model_without_blocks_is_refused():
    class Small:
        config = TrunkConfig()

        def blocks(self):
            return []

    with pytest.raises(ContractError, match="film model has no blocks"):
        adapt(Small(), rank=4, alpha=8)


def test_a_base_in_4_bits_is_near_the_full_one_and_is_merged():
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    model, full = toy_model(WIDE), toy_model(WIDE)
    adapt(model, rank=4, alpha=8, nf4=True)
    model.to("cpu")
    layer = model.layers[0].mlp.up_proj.base_layer
    assert layer.weight.dtype == torch.uint8
    assert layer.weight.numel() * 2 == WIDE.hidden * WIDE.inter
    assert (logits(model) - logits(full)).abs().max() < 0.05
    disturb(model)
    adapted = logits(model)
    weights = dict(merged(model, whole))
    assert weights.keys() == full.state_dict().keys()
    full.load_state_dict(weights)
    torch.testing.assert_close(logits(full), adapted, rtol=1e-3, atol=1e-3)


def test_pretraining_over_4_bits_leaves_a_checkpoint_that_loads(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    config = PretrainConfig(
        **{**LWM, "model": WIDE, "labels": write_toy_labels(tmp_path / "labels")}
    )
    config = replace(config, out=tmp_path / "run", lora_rank=4, base="nf4", micro_batch=4)
    store = toy_store(image_px=16)
    model = load_vla(pretrain.train(config, store).checkpoint).model
    assert not any("lora" in name or "base_layer" in name for name in model.state_dict())
    again = pretrain.train(config, store)
    assert again.history == [], "the finished run has nothing left to do, and its state fits"


def test_without_bitsandbytes_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn.modules", None)
    with pytest.raises(SetupError, match=r"lapa_core\[quant\]"):
        adapt(toy_model(), rank=4, alpha=8, nf4=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": "nf4"}, "give a lora_rank"),
        ({"base": "nf4", "lora_rank": 8, "parallel": "fsdp2"}, "use ddp"),
        ({"micro_batch": -1}, "micro_batch is -1"),
    ],
)
def test_what_cannot_go_together_is_refused(changes, words):
    with pytest.raises(ContractError, match=words):
        FinetuneConfig(data=Path("x"), **changes)


def test_counting_needs_no_tokenizer():
    with torch.device("meta"):
        model = make_model(LWM_DEBUG, None, latent=(4, 8))
    assert new_names(model) == ["tables.latent.weight", "heads.latent.weight"]
