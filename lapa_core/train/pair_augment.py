# SPDX-License-Identifier: Apache-2.0
"""Augmentation of frame pairs: whatever happens to the first frame happens to the later one.

A pair that is cut, shifted and lit as one still shows the same motion, so its latent should stay the same. The random
numbers are drawn for the joint batch of all ranks from torch's seeded global CPU generator and cut by rank, so they
depend neither on the device nor on how many processes share the batch.

Shapes: B pairs of this rank, G pairs of all ranks, S image side [px].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PairAugment:
    """What may happen to a pair. All zero: nothing, and no random number is drawn."""

    shift_px: int = 0
    """Largest shift in both axes [px]; the border repeats."""
    crop: float = 0.0
    """Largest share of the side that a random square leaves out before it is scaled back."""
    light: float = 0.0
    """Largest relative change of contrast; brightness moves by up to half of it."""
    colour: float = 0.0
    """Largest relative change of each colour channel."""
    rank: int = 0
    """Which part of the joint batch is given."""
    world: int = 1
    """Number of parts."""

    def __call__(self, x0_B3SS: Tensor, x1_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        """Return both frames of each pair, in [0, 1], after the same fresh changes."""
        if not (self.shift_px or self.crop or self.light or self.colour):
            return x0_B3SS, x1_B3SS
        pair_B6SS = torch.cat([x0_B3SS, x1_B3SS], dim=1)
        if self.shift_px or self.crop:
            pair_B6SS = self._move(pair_B6SS)
        if self.light or self.colour:
            pair_B6SS = self._light(pair_B6SS)
        first_B3SS, later_B3SS = pair_B6SS.chunk(2, dim=1)
        return first_B3SS, later_B3SS

    def _draw(self, like: Tensor, columns: int) -> Tensor:
        """Return numbers (B, columns) uniform in [-1, 1]."""
        share = len(like)
        drawn = 2.0 * torch.rand(share * self.world, columns) - 1.0
        return drawn[self.rank * share : (self.rank + 1) * share].to(like.device)

    def _move(self, pair_B6SS: Tensor) -> Tensor:
        """Shift by whole pixels, or cut a square at any place and scale it back."""
        side = pair_B6SS.shape[-1]
        shift_B2 = (self._draw(pair_B6SS, 2) * (self.shift_px + 0.5)).round()
        shift_B2 = shift_B2.clamp(-self.shift_px, self.shift_px) * (2.0 / side)
        if self.crop:
            cut_B3 = self._draw(pair_B6SS, 3)
            scale_B1 = 1.0 - self.crop * (cut_B3[:, :1] + 1.0) / 2.0
            shift_B2 = shift_B2 + cut_B3[:, 1:] * (1.0 - scale_B1)
        else:
            scale_B1 = torch.ones_like(shift_B2[:, :1])
        zero_B1 = torch.zeros_like(scale_B1)
        row_x = torch.cat([scale_B1, zero_B1, shift_B2[:, :1]], dim=1)
        row_y = torch.cat([zero_B1, scale_B1, shift_B2[:, 1:]], dim=1)
        grid = F.affine_grid(
            torch.stack([row_x, row_y], dim=1), list(pair_B6SS.shape), align_corners=False
        )
        return F.grid_sample(pair_B6SS, grid, padding_mode="border", align_corners=False)

    def _light(self, pair_B6SS: Tensor) -> Tensor:
        change_B5 = self._draw(pair_B6SS, 5)
        gain_B3 = (1.0 + self.light * change_B5[:, :1]) * (1.0 + self.colour * change_B5[:, 1:4])
        bias_B1 = 0.5 * self.light * change_B5[:, 4:]
        gain_B6 = gain_B3.repeat(1, 2)
        return (pair_B6SS * gain_B6[..., None, None] + bias_B1[..., None, None]).clamp(0.0, 1.0)
