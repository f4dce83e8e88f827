# SPDX-License-Identifier: Apache-2.0
"""The continuous head: one linear layer from the features to a chunk of actions, trained with L1.

An option of finetuning beside the paper's bins. Evidence (facts/peers.md 1.4): OpenVLA-OFT 90.2 -> 95.3 on LIBERO
with L1 instead of bins, UniVLA 73.6 -> 95.2 with a continuous chunk.

Shapes: B frames, F features, H actions of a chunk, A action dimensions (7).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INIT_STD = 0.02
"""Of all fresh heads and embeddings (Llama's; facts/lapa.md 2.5, also on what the release's training makes of it)."""
_LEAST_SPREAD = 1e-6
"""Spread below which a dimension counts as constant: its action is the mean."""


class ChunkHead(nn.Module):
    """Features -> (B, H, A); statistics of the actions are buffers and travel with the weights."""

    mean_A: Tensor
    spread_A: Tensor

    def __init__(
        self, features: int, mean_A: Sequence[float], spread_A: Sequence[float], steps: int
    ):
        super().__init__()
        self.steps = steps
        self.register_buffer("mean_A", torch.tensor(mean_A, dtype=torch.float32))
        self.register_buffer("spread_A", torch.tensor(spread_A, dtype=torch.float32))
        self.linear = nn.Linear(features, steps * len(self.mean_A))
        nn.init.normal_(self.linear.weight, std=INIT_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return actions (B, H, A) in their own units."""
        scaled_BHA = self.linear(features_BF).float().unflatten(1, (self.steps, -1))
        return self.mean_A + self.spread_A * scaled_BHA


def chunk_loss(
    actions_BHA: Tensor, label_BHA: Tensor, known_BH: Tensor, spread_A: Tensor
) -> Tensor:
    """Return the mean absolute error in standard deviations, over the actions that lie inside their episode.

    The mean is taken for each frame, whose own action always does, and then over the frames.
    """
    live_A = spread_A > _LEAST_SPREAD
    scale_A = spread_A[live_A]
    error_BHA = F.l1_loss(
        actions_BHA[..., live_A] / scale_A, label_BHA[..., live_A] / scale_A, reduction="none"
    )
    error_B = (error_BHA.mean(dim=-1) * known_BH).sum(dim=1) / known_BH.sum(dim=1)
    return error_B.mean()
