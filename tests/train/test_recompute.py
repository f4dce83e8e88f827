# SPDX-License-Identifier: Apache-2.0
"""Activation checkpointing changes what is kept, and no number."""

from __future__ import annotations

import torch
from torch import nn

from lapa_core.train.recompute import recompute


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.5), nn.Linear(32, 8))
        for _ in range(3)
    ]
    return nn.Sequential(*layers)


def step(model: nn.Module) -> tuple[list[torch.Tensor], int]:
    """Return the gradients of one step, and how many numbers were kept for it."""
    kept = 0

    def keep(tensor):
        nonlocal kept
        kept += tensor.numel()
        return tensor

    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(x).square().mean()
    loss.backward()
    return [p.grad for p in model.parameters()], kept


def test_gradients_are_the_same_and_less_is_kept():
    plain, again = network(), network()
    names = again.state_dict().keys()
    recompute(again)
    gradients, kept = step(plain)
    others, fewer = step(again)
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    assert fewer < kept / 4
    assert again.state_dict().keys() == names
