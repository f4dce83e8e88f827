# SPDX-License-Identifier: Apache-2.0
"""Rotary positions of the release, with the rounding that its weights learned with (facts/lapa.md 2.1).

In bfloat16 the release keeps the table of angles, and of their sines and cosines, in bfloat16 too: around position
300, where latent and action tokens sit, an angle is off by up to 1 rad. Weights that were trained so want it so.

Shapes: B sequences, H heads, Q positions, W head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(
    positions_BQ: Tensor, head_dim: int, theta: float, *, rounded: bool
) -> tuple[Tensor, Tensor]:
    """Return what `rotate` takes: cosines and signed sines, (B, 1, Q, W) float32 each.

    The second half of W repeats the first, with the sign of the sines changed to plus.

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
    cosines, sines = angles.cos(), angles.sin()
    if rounded:
        cosines, sines = cosines.bfloat16().float(), sines.bfloat16().float()
    cosines, sines = torch.cat([cosines, cosines], dim=-1), torch.cat([-sines, sines], dim=-1)
    return cosines.unsqueeze(1), sines.unsqueeze(1)


def rotate(x_BHQW: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + W / 2) by its angle, in float32; the result has the type of x."""
    cosines, sines = table
    swapped_BHQW = x_BHQW.roll(x_BHQW.shape[-1] // 2, dims=-1)
    return torch.addcmul(x_BHQW * cosines, swapped_BHQW, sines).to(x_BHQW.dtype)
