# SPDX-License-Identifier: Apache-2.0
"""Rotary positions of the release, with the rounding that its weights learned with (facts/lapa.md 2.1).

In bfloat16 the release keeps the table of angles, and of their sines and cosines, in bfloat16 too: around position
300, where latent and action tokens sit, an angle is off by up to 1 rad. Weights that were trained so want it so.

Shapes: B sequences, Q positions, W head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(
    positions_BQ: Tensor, head_dim: int, theta: float, *, rounded: bool
) -> tuple[Tensor, Tensor]:
    """Return (cosines, sines), each (B, Q, W) float32; the second half of W repeats the first.

    Args:
        positions_BQ: int64.
        head_dim: W.
        theta: base of the wave lengths; pair i turns by theta ** (-2 i / W) rad per position.
        rounded: round angles, cosines and sines to bfloat16.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions_BQ.device)
    rate = (theta ** (-pairs / head_dim)).float().double()
    angles = (positions_BQ.unsqueeze(-1) * rate).float()
    if rounded:
        angles = angles.bfloat16().float()
    angles = torch.cat([angles, angles], dim=-1)
    cosines, sines = angles.cos(), angles.sin()
    if rounded:
        cosines, sines = cosines.bfloat16().float(), sines.bfloat16().float()
    return cosines, sines
