# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedule: linear warm-up, then a cosine to zero; a pure function of the step."""

from __future__ import annotations

import math

import torch


def cosine_factor(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Return the factor in (0, 1] that multiplies every learning rate at this step (counted from 0)."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each parameter group to its own `base_lr` times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
