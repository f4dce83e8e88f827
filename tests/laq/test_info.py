# SPDX-License-Identifier: Apache-2.0
"""`lapa laq info`: what a preset would be, without allocating it."""

from __future__ import annotations

import json

import pytest

from lapa_core import cli
from lapa_core.errors import ContractError
from lapa_core.laq.checkpoint import build_laq
from lapa_core.laq.info import LaqInfoConfig, info
from lapa_core.laq.presets import LAQ_TRAIN


def test_the_release_at_its_size_as_json(capsys):
    cli.main(["laq", "info", "--preset", "paper", "--compat", "release"])
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 343_796_080
    assert found["buffer_values"] == 68_608
    assert found["bytes"] == 4 * (343_796_080 + 68_608)
    assert found["state"]["vq.codebooks"] == {
        "shape": [8, 32],
        "dtype": "float32",
        "kind": "parameter",
    }
    assert found["state"]["enc_temporal_transformer.norm_out.beta"]["kind"] == "buffer"


@pytest.mark.parametrize("preset", sorted(LAQ_TRAIN))
def test_every_preset_is_described_as_it_is_built(preset):
    found = info(LaqInfoConfig(preset=preset))
    assert found["parameters"] > 0
    if found["parameters"] < 10_000_000:
        state = build_laq(LAQ_TRAIN[preset].model).state_dict()
        shapes = {name: list(tensor.shape) for name, tensor in state.items()}
        assert {name: entry["shape"] for name, entry in found["state"].items()} == shapes


def test_what_does_not_exist_is_refused():
    with pytest.raises(ContractError, match=r"known are .*debug.*paper"):
        info(LaqInfoConfig(preset="huge"))
    with pytest.raises(ContractError, match="conv design"):
        info(LaqInfoConfig(preset="sim", compat="release"))
