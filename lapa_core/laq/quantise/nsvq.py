# SPDX-License-Identifier: Apache-2.0
"""NSVQ: vector quantisation trained by noise substitution, as LAPA uses it (paper, appendix A).

In training the quantisation error is replaced by random noise of the same length,

    x_hat = x + |x - c| * r / |r|,   r ~ N(0, I),   c the nearest code,

so gradients reach both x and c through the length, with no straight-through estimator and no commitment loss.
Corrected against the release (facts, section 1.6): assignments are truly counted (it adds at most one per
batch), counts are buffers (it loses them on save), and unused codes are replaced on a schedule that the caller
owns (it stops for good after step 5000, a common cause of collapse).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

_EPSILON = 1e-12


class Quantised(NamedTuple):
    """Result of a quantiser."""

    vectors_BKD: Tensor
    """Noise-substituted vectors in training, the chosen codes in evaluation."""
    codes_BK: Tensor
    """Index of the nearest code of every token, int64."""


class Nsvq(nn.Module):
    """One codebook shared by all token positions."""

    usage_N: Tensor

    def __init__(self, codes: int, dim: int):
        super().__init__()
        self.codebook_ND = nn.Parameter(torch.randn(codes, dim))
        self.register_buffer("usage_N", torch.zeros(codes, dtype=torch.int64))

    def forward(self, x_BKD: Tensor) -> Quantised:
        """Quantise tokens (B, K, D)."""
        distance_BKN = (x_BKD.unsqueeze(2) - self.codebook_ND).square().sum(dim=-1)
        codes_BK = distance_BKN.argmin(dim=-1)
        nearest_BKD = self.codebook_ND[codes_BK]
        if not self.training:
            return Quantised(nearest_BKD, codes_BK)
        self.usage_N += torch.bincount(codes_BK.flatten(), minlength=len(self.usage_N))
        noise_BKD = torch.randn_like(x_BKD)
        error_BK1 = (x_BKD - nearest_BKD).norm(dim=-1, keepdim=True)
        scale_BK1 = error_BK1 / (noise_BKD.norm(dim=-1, keepdim=True) + _EPSILON)
        return Quantised(x_BKD + scale_BK1 * noise_BKD, codes_BK)

    @torch.no_grad()
    def replace_unused(self, min_share: float) -> int:
        """Move codes used less than `min_share` of an equal share onto used ones; reset the counts.

        A replacement is a used code (drawn in proportion to its use) plus a tenth of the codebook's spread, so
        that the two split the used code's cell between them.

        Returns:
            Number of codes that were moved.
        """
        total = int(self.usage_N.sum())
        if total == 0:
            return 0
        unused_N = self.usage_N < min_share * total / len(self.usage_N)
        count = int(unused_N.sum())
        if 0 < count < len(self.usage_N):
            source = torch.multinomial(self.usage_N.float() * ~unused_N, count, replacement=True)
            spread = (
                0.1
                * self.codebook_ND.std()
                * torch.randn(count, self.codebook_ND.shape[1]).to(self.codebook_ND)
            )
            self.codebook_ND[unused_N] = self.codebook_ND[source] + spread
        self.usage_N.zero_()
        return count
