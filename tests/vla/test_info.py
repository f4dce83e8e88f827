# SPDX-License-Identifier: Apache-2.0
"""`lapa vla info`."""

from __future__ import annotations

import json
import math
import resource

import pytest

from lapa_core.cli import main as lapa
from lapa_core.errors import ContractError
from lapa_core.vla.info import VlaInfoConfig, info
from tests.vla.lwm_toys import toy_lwm


def test_the_7b_model_is_counted_without_its_memory(capsys):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lapa(["vla", "info", "--preset", "lapa_7b"])
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 6_807_687_168
    assert found["frame_tokenizer_parameters"] == 146_244_675
    assert found["model"]["rope_theta"] == 5e7
    assert found["shapes"]["tables.vision.weight"] == [8448, 4096]
    assert found["shapes"]["layers.31.mlp.down_proj.weight"] == [4096, 11008]
    assert found["shapes"]["vqgan.model.quantize.embedding.weight"] == [8192, 64]
    assert grown_mib < 500


def test_the_finetuned_model_has_the_other_head():
    latent, action = (info(VlaInfoConfig(head=head)) for head in ("latent", "action"))
    assert action["parameters"] - latent["parameters"] == 2 * (256 - 8) * 4096
    assert action["shapes"]["heads.action.weight"] == [256, 4096]
    assert "heads.latent.weight" not in action["shapes"]


def test_the_shapes_are_those_of_the_model_itself():
    found = info(VlaInfoConfig(preset="lwm_debug"))
    model = toy_lwm()
    model.drop_action_head()
    assert found["shapes"] == {name: list(t.shape) for name, t in model.state_dict().items()}


def test_a_backbone_of_transformers_is_counted_too(tmp_path, monkeypatch):
    monkeypatch.setenv("LAPA_CACHE", str(tmp_path))
    found = info(VlaInfoConfig(preset="hf_debug"))
    assert found["model"]["kind"] == "hf"
    assert found["parameters"] == sum(math.prod(shape) for shape in found["shapes"].values())


def test_a_small_model_is_counted_too():
    found = info(VlaInfoConfig(preset="sim", latent=(1, 8)))
    assert found["model"]["kind"] == "film"
    assert found["frame_tokenizer_parameters"] == 0
    assert found["parameters"] > 0


def test_an_unknown_preset_is_refused_with_those_that_there_are():
    with pytest.raises(ContractError, match="lapa_7b"):
        info(VlaInfoConfig(preset="lapa_8b"))
