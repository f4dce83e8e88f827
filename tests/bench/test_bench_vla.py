# SPDX-License-Identifier: Apache-2.0
"""`lapa bench vla`: figures that fit together, a plain `generate` that is the same model, one JSON object last."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lapa_core.actions.bins import ActionBins
from lapa_core.bench import vla_models
from lapa_core.bench.vla import BenchVlaConfig, Eye, floor_of, main
from lapa_core.bench.vla_floor import operations_of, weight_bytes_read
from lapa_core.bench.vla_models import MODELS, free_memory_bytes, random_model
from lapa_core.bench.vla_plain import PlainLlama
from lapa_core.errors import ContractError, SetupError
from lapa_core.vla.checkpoint import PRETRAINED, save_vla
from lapa_core.vla.decode.choose import greedy
from lapa_core.vla.lwm.config import LWM_DEBUG


def test_the_last_line_is_one_json_object(capsys):
    main(BenchVlaConfig(frames=3, int8=True))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    small, lwm = result["models"]["small"], result["models"]["lwm_debug"]
    assert set(small["ms"]) == {"ours", "new_instruction"}
    assert set(lwm["ms"]) == {"ours", "plain", "int8", "new_instruction"}
    ms = lwm["ms"]
    assert all(0 < way["p50"] <= way["p99"] for way in ms.values())
    assert lwm["times_faster_than_plain"] == pytest.approx(
        ms["plain"]["p50"] / ms["ours"]["p50"], rel=0.01
    )
    for model in (small, lwm):
        assert model["times_the_floor"] == pytest.approx(
            model["ms"]["ours"]["p50"] / model["floor_ms"]["total"], rel=0.01
        )
    parts = lwm["floor_ms"]
    assert parts["total"] == pytest.approx(
        parts["tokenizer_and_prefix"] + parts["later_tokens"], rel=0.01
    )


@pytest.mark.parametrize("head", ["latent", "action"])
def test_plain_is_the_same_model(head, monkeypatch):
    """In one number format and with equally many bins in each dimension, both give the same ids."""
    exact = replace(LWM_DEBUG, rope_bf16=False)
    monkeypatch.setitem(MODELS, "exact", exact)
    model = random_model("exact", "cpu")
    model.give_action_head(ActionBins([np.linspace(-1, 1, exact.action_vocab + 1)] * 7))
    with torch.no_grad():
        for matrix in (p for p in model.parameters() if p.ndim == 2):
            matrix.normal_(std=0.3)
    plain, eye = PlainLlama(model, head), Eye(model)
    seen = set()
    for seed in range(4):
        frame = torch.randint(32, (1, 17), generator=torch.Generator().manual_seed(seed))
        inputs = eye.inputs(0) | {"vision": frame}
        mine = model.decode(inputs, head, greedy)
        assert mine.tolist() == plain.decode(inputs).tolist()
        seen.add(tuple(mine[0].tolist()))
    assert len(seen) > 1  # the frames make a difference
    own = {p.data_ptr() for p in model.parameters()}
    assert all(p.data_ptr() in own for p in plain.parameters())


def test_floor_counts_each_layer_once_per_token_and_no_table():
    model = random_model("lwm_debug", "cpu")
    floor, counted = floor_of(Eye(model), model, BenchVlaConfig(), bandwidth=1e9, rate=1e9)
    config = LWM_DEBUG
    layer = 4 * config.hidden**2 + 3 * config.hidden * config.inter + 2 * config.hidden
    expected = config.layers * layer + config.hidden * (1 + config.action_vocab)
    assert counted["weight_bytes_per_token"] == 4 * expected
    assert counted["tokens_after_the_first"] == 6
    assert floor.read_s == pytest.approx(6 * 4 * expected / 1e9)
    prefix = config.frame_tokens + 1
    assert counted["operations_before_the_second_token"] > 2 * prefix * config.layers * (
        layer - 2 * config.hidden
    )


def test_a_checkpoint_is_measured_instead(tmp_path, capsys):
    model = random_model("lwm_debug", "cpu")
    model.drop_action_head()
    folder = save_vla(tmp_path / "model", PRETRAINED, model)
    main(BenchVlaConfig(checkpoint=folder, head="latent", frames=1))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["models"][str(folder)]["tokens_after_the_first"] == 3


def test_bytes_and_operations_of_known_work():
    table, linear = nn.Embedding(10, 4), nn.Linear(4, 8, dtype=torch.float64)
    model = nn.ModuleList([table, linear, nn.Linear(4, 4)])
    ids = torch.tensor([1, 2])
    assert weight_bytes_read(model, lambda: linear(table(ids).double()) * 2) == 8 * (32 + 8)
    assert operations_of(lambda: linear(torch.ones(3, 4, dtype=torch.float64))) == 2 * 3 * 4 * 8


def test_a_model_that_does_not_fit_is_refused(monkeypatch):
    assert free_memory_bytes("cpu") > 2**20
    monkeypatch.setattr(vla_models, "free_memory_bytes", lambda device: 20 * 2**30)
    with pytest.raises(SetupError, match=r"lapa_7b needs 3\d\.\d GiB on cpu, where 20\.0 GiB"):
        random_model("lapa_7b", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named():
    with pytest.raises(SetupError, match="device is cuda, but torch sees no CUDA device"):
        main(BenchVlaConfig(device="cuda"))


def test_nonsense_is_refused():
    with pytest.raises(ContractError, match="lapa_7b, lwm_debug"):
        BenchVlaConfig(preset="lapa_8b")
    with pytest.raises(ContractError, match="frames"):
        BenchVlaConfig(frames=-1)
