# SPDX-License-Identifier: Apache-2.0
"""The dry run against sums that are known, and against what a real pass keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lapa_core import cli
from lapa_core.presets import VLA_FINETUNE, VLA_PRETRAIN
from lapa_core.vla.config import FinetuneConfig, PretrainConfig
from lapa_core.vla.estimate import GIB, estimate, table
from lapa_core.vla.lwm.config import LWM_DEBUG
from tests.torchrun import REPOSITORY
from tests.vla.together import LWM

RELEASED = 6_807_687_168
"""Parameters of LAPA-7B without its VQGAN (facts/lapa.md), whose 146,244,675 come beside them."""
VQGAN = 146_244_675


@pytest.fixture(scope="module")
def paper():
    """The paper's pretraining on eight processes."""
    return estimate(replace(VLA_PRETRAIN["lapa_7b"], processes=8))


def test_the_released_model_is_counted_to_the_last_parameter(paper):
    assert paper.parameters == RELEASED + VQGAN


def test_flops_are_those_of_the_matrices_and_of_attention(paper):
    sizes = VLA_PRETRAIN["lapa_7b"].model
    layer = 4 * sizes.hidden**2 + 3 * sizes.hidden * sizes.inter
    attention = 2 * paper.positions * sizes.hidden
    tokens = 32 * paper.positions
    forward = 2 * tokens * sizes.layers * (layer + attention)
    assert 3 * forward < paper.step_flops < 4.1 * forward, (
        "once forward, twice backward, once again"
    )


def test_the_page_shows_what_is_printed(paper):
    page = (REPOSITORY / "docs/vla.md").read_text()
    missing = [line for line in table(paper).splitlines()[1:] if line not in page]
    assert not missing


def shallow(config, **changes):
    """Two layers of the same widths: as much to see, and quickly."""
    return replace(config, model=replace(config.model, layers=2), **changes)


def test_eight_processes_divide_weights_gradients_and_optimizer(paper):
    assert paper.memory.optimizer == pytest.approx(8 * paper.trained / 8, rel=1e-6)
    assert paper.memory.gradients == pytest.approx(paper.memory.optimizer / 2, rel=1e-6)
    assert paper.memory.total < 40 * GIB
    one, eight = (estimate(shallow(VLA_PRETRAIN["lapa_7b"], processes=n)) for n in (1, 8))
    assert one.memory.optimizer == pytest.approx(8 * eight.memory.optimizer, rel=1e-6)


def test_recomputing_trades_flops_for_memory():
    paper = VLA_PRETRAIN["lapa_7b"]
    plain, again = (estimate(shallow(paper, recompute=flag)) for flag in (False, True))
    assert plain.memory.activations > 1.5 * again.memory.activations
    assert again.step_flops > 1.2 * plain.step_flops


def test_a_base_in_4_bits_is_a_quarter_of_bfloat16():
    lora = VLA_FINETUNE["lapa_7b_lora"]
    small, full = (estimate(shallow(lora, base=base)) for base in ("nf4", "full"))
    blocks = 2 * (4 * lora.model.hidden**2 + 3 * lora.model.hidden * lora.model.inter)
    saved = full.memory.weights - small.memory.weights
    assert saved == pytest.approx((2 - 0.516) * blocks, rel=0.01)
    assert small.memory.optimizer == 8 * small.trained


def test_kept_bytes_bound_those_of_a_real_pass():
    """The CPU fuses attention, the meta device keeps its matrix."""
    from lapa_core.vla.base import make_model
    from lapa_core.vla.estimate import _example, _loss

    config = PretrainConfig(**{**LWM, "recompute": False})
    model = make_model(LWM_DEBUG, None, latent=(4, 8)).train()
    weights = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _loss(model, _example(model, 8), 8)
    real = sum(storage.nbytes() for storage in kept.values())
    assert real <= estimate(config).memory.activations < 1.5 * real


def test_the_small_model_is_counted_too():
    found = estimate(FinetuneConfig(data=Path("none")))
    assert found.positions == 0
    assert found.memory.weights == 4 * found.parameters


def test_the_command_reads_no_data(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["vla", "pretrain", "lwm_debug", "--dry-run", "--processes", "2"])
    printed = capsys.readouterr().out
    assert "over 2 process(es)" in printed
    assert "activations" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_backbone_of_transformers_is_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = estimate(VLA_PRETRAIN["hf_debug"])
    assert found.positions > VLA_PRETRAIN["hf_debug"].model.max_text
    assert 0 < found.trained < found.parameters, "its tower is frozen"
    assert found.step_flops > 0


def test_the_table_says_what_it_is():
    said = table(estimate(VLA_FINETUNE["debug_scratch"]))
    assert said.startswith("computed")
