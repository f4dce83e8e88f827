# SPDX-License-Identifier: Apache-2.0
"""The optimizer of the training loops that may run on a GPU or on many."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def adamw(
    module: nn.Module, learning_rate: float, *, weight_decay: float, beta2: float = 0.999
) -> torch.optim.AdamW:
    """Return AdamW over what is trained in a module: one fused kernel on CUDA and on CPUs that have it.

    Args:
        module: on its device and wrapped, because FSDP2 replaces the parameters.
        learning_rate: peak rate; `set_learning_rate` scales it.
        weight_decay: decoupled decay.
        beta2: decay of the squared gradient.
    """
    optimizer = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=learning_rate,
        betas=(0.9, beta2),
        weight_decay=weight_decay,
        fused=True,
    )
    optimizer.param_groups[0]["base_lr"] = learning_rate
    return optimizer


def descend(loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> None:
    """Take one step down a loss, with the gradients of all parameters of a module cut to a joint norm."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
    optimizer.step()
