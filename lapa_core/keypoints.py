# SPDX-License-Identifier: Apache-2.0
"""Keypoints: where each of a few learned maps sees its thing. What both the LAQ and the trunk read off an image.

Spatial softmax (Levine et al., "End-to-end training of deep visuomotor policies", 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GROUPS = 4
"""Groups of the normalisations: they need no batch statistics, so one frame gives what a batch gives."""


class Keypoints(nn.Module):
    """Expected position of each of M maps under a softmax over the cells of a square feature map."""

    coordinates_P2: Tensor

    def __init__(self, channels: int, keypoints: int, side: int):
        """Build M = `keypoints` maps (a multiple of 4) on (B, channels, side, side)."""
        super().__init__()
        self.maps = nn.Conv2d(channels, keypoints, 1)
        self.norm = nn.GroupNorm(GROUPS, keypoints)
        axis = torch.linspace(-2.0, 2.0, side)
        grid_2HW = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
        self.register_buffer("coordinates_P2", grid_2HW.flatten(1).T.contiguous(), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, 2 M): y and x of every keypoint, in -2 to 2."""
        weight_BMP = self.norm(self.maps(x_BCHW)).flatten(2).softmax(dim=-1)
        return (weight_BMP @ self.coordinates_P2).flatten(1)
