# SPDX-License-Identifier: Apache-2.0
"""Latent action models of the toy dot whose quality is known: one that reads the motion, and three ways to fail."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lapa_core.laq.base import LatentActionModel

DIRECTIONS = torch.tensor([[0, -1], [0, 1], [-1, 0], [1, 0]])
"""Row and column steps of codes 0 to 3: left, right, up, down."""
STEP_PX = 4
"""How far the dot moves in 0.4 s."""


class DotModel(LatentActionModel):
    """Finds the red dot in both frames; a code is its direction, and the decoder moves the whole picture."""

    image_px, tokens, codes = 32, 1, 4

    def __init__(self, kind: Literal["true", "random", "collapsed", "place"] = "true"):
        super().__init__()
        self.kind = kind
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.dice = torch.Generator().manual_seed(0)

    def where(self, x_BCHW: Tensor) -> Tensor:
        """Row and column of the dot (B, 2)."""
        weight_BHW = (x_BCHW[:, 0] - x_BCHW[:, 1]).clamp(min=0.0) + 1e-6
        total_B = weight_BHW.sum(dim=(1, 2))
        grid = torch.arange(32.0)
        return (
            torch.stack([weight_BHW.sum(2) @ grid, weight_BHW.sum(1) @ grid], 1) / total_B[:, None]
        )

    def encode_pair(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        moved_B2 = self.where(x1_BCHW) - self.where(x0_BCHW)
        codes_B = (moved_B2 @ DIRECTIONS.T.float()).argmax(dim=1)
        if self.kind == "random":
            codes_B = torch.randint(0, 4, codes_B.shape, generator=self.dice)
            moved_B2 = torch.randn(moved_B2.shape, generator=self.dice)
        elif self.kind == "collapsed":
            codes_B, moved_B2 = torch.zeros_like(codes_B), 0.01 * moved_B2
        elif self.kind == "place":  # names where the dot is in the later frame, not how it moved
            moved_B2 = self.where(x1_BCHW)
            codes_B = 2 * (moved_B2[:, 0] > 16).long() + (moved_B2[:, 1] > 16).long()
        return codes_B[:, None], moved_B2[:, None]

    def render(self, x0_BCHW: Tensor, codes_BK: Tensor) -> Tensor:
        steps = (STEP_PX * DIRECTIONS[codes_BK[:, 0]]).tolist()
        moved = [x.roll((dy, dx), (1, 2)) for x, (dy, dx) in zip(x0_BCHW, steps, strict=True)]
        return torch.stack(moved)

    def predict(self, x0_BCHW: Tensor, x1_BCHW: Tensor, start_BCHW: Tensor) -> Tensor:
        return self.render(start_BCHW, self.encode_pair(x0_BCHW, x1_BCHW)[0])
