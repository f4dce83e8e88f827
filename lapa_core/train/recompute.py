# SPDX-License-Identifier: Apache-2.0
"""Activation checkpointing: inside a unit nothing is kept for the backward pass but its inputs (Chen et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(units: Iterable[nn.Module]) -> None:
    """Let every unit compute its forward pass again when its gradients are wanted; names of weights stay.

    It costs one more forward pass of the units and saves all activations inside them but one unit's.
    """
    for unit in units:
        unit.forward = _twice(unit.forward)


def _twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
