# SPDX-License-Identifier: Apache-2.0
"""int8 for one row: within its bound, shared otherwise, and the original model untouched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lapa_core.bench.vla import Eye
from lapa_core.bench.vla_models import random_model
from lapa_core.vla.decode.choose import greedy
from lapa_core.vla.decode.int8 import Int8Linear, int8_steps


@pytest.mark.parametrize("bias", [False, True])
def test_one_row_is_within_half_a_step(bias):
    torch.manual_seed(0)
    linear = nn.Linear(64, 32, bias=bias)
    with torch.no_grad():
        linear.weight[3] = 0.0
        linear.weight[4] *= 100.0  # a scale for each output: a large one harms no other
    small = Int8Linear(linear)
    x = torch.randn(1, 1, 64)
    off = (small(x) - linear(x)).abs().flatten()
    bound = small.scale_O / 2 * x.abs().sum() + 1e-5
    assert (off <= bound).all()
    assert off.max() > 1e-4
    assert (small.weight_OI.abs().amax(dim=1) == 127).sum() == 31
    rows = torch.randn(2, 5, 64)
    assert torch.equal(small(rows), linear(rows))


def test_a_model_with_int8_steps_shares_its_tensors():
    model = random_model("lwm_debug", "cpu")
    names = set(model.state_dict())
    twin = int8_steps(model)
    assert set(model.state_dict()) == names
    own = {p.data_ptr() for p in model.parameters()}
    assert all(p.data_ptr() in own for p in twin.parameters())
    eye = Eye(model)
    inputs = eye.inputs(0)
    two = {name: value.expand(2, *value.shape[1:]) for name, value in inputs.items()}
    assert torch.equal(twin.decode(two, "action", greedy), model.decode(two, "action", greedy))
    replaced = [m for m in twin.modules() if isinstance(m, Int8Linear)]
    assert len(replaced) == 7 * len(model.layers)
    with torch.no_grad():
        embedding = model.embed("latent", torch.tensor([1]), 0)[:, None]
        place = torch.zeros(1, 1, dtype=torch.int64)
        near, exact = (m.backbone(embedding, place, None, None) for m in (twin, model))
    assert 0 < (near - exact).norm() / exact.norm() < 0.02
    assert twin.decode(inputs, "latent", greedy).shape == (1, 4)
