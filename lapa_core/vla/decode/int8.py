# SPDX-License-Identifier: Apache-2.0
"""Weight-only int8 for passes over one position, which take as long as their weights take to be read.

Each output of a linear layer has a scale of its own (the largest weight is 127). A pass over several positions is
bound by arithmetic and keeps the weights as they were, so both are held: half again of the memory. Rounding moves an
output by at most half a step: `scale / 2 * sum(abs(inputs))`.

Shapes: O outputs, I inputs.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from lapa_core.vla.base import VlaModel

Model = TypeVar("Model", bound=VlaModel)

_LARGEST = 127.0


class Int8Linear(nn.Module):
    """A linear layer that reads int8 weights for one row of inputs, and its own for more."""

    weight_OI: Tensor
    scale_O: Tensor

    def __init__(self, linear: nn.Linear):
        """Round the weights of `linear`, which is kept."""
        super().__init__()
        self.whole = linear
        weight_OI = linear.weight.detach().float()
        scale_O1 = weight_OI.abs().amax(dim=1, keepdim=True).clamp_min(1e-30) / _LARGEST
        self.register_buffer("weight_OI", (weight_OI / scale_O1).round().to(torch.int8))
        self.register_buffer("scale_O", scale_O1.squeeze(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., O) of (..., I). The product is spelled out: compiled, it is one kernel that reads int8."""
        if x.numel() != x.shape[-1]:
            whole: Tensor = self.whole(x)
            return whole
        y_O = (self.weight_OI * x.flatten().float()).sum(dim=1) * self.scale_O
        if self.whole.bias is not None:
            y_O = y_O + self.whole.bias
        return y_O.to(x.dtype).view(*x.shape[:-1], -1)


def int8_steps(model: Model) -> Model:
    """Return a model for decoding that shares every tensor and text side, with int8 copies of its blocks' matrices.

    It pays on a GPU with `DecodeOptions(compile=True)` and one frame at a time; eager, it is slower than no int8.
    """
    shared = [*model.parameters(), *model.buffers(), *([] if model.text is None else [model.text])]
    twin = copy.deepcopy(model, {id(item): item for item in shared})
    for block in twin.blocks():
        for parent in list(block.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, Int8Linear(child))
    return twin.eval()
