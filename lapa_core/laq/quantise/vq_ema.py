# SPDX-License-Identifier: Apache-2.0
"""Vector quantisation whose codes follow their tokens as moving averages (van den Oord et al. 2017, appendix A.1).

Gradients pass the codes by vector-quantize-pytorch's rotation trick (Fifty et al. 2024). The averages are ours: the
library's read a flag back from the device in every forward pass, which splits a compiled graph into a dozen, and
its dead codes are refilled from the samples of one rank. Here a forward pass only adds up, and `after_step` moves
the codes by the sums of all ranks.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from lapa_core.laq.quantise.base import Quantised, Quantiser

DECAY = 0.99
COMMITMENT = 0.25
"""Weight of |x - c|^2, which keeps tokens near their codes (van den Oord et al. 2017: 0.25)."""
_SMALLEST_SIZE = 1e-5


class VqEma(Quantiser):
    """One codebook of moving averages."""

    codebook_ND: Tensor
    size_N: Tensor
    """Moving average of the tokens that each code gets in a step."""
    step_size_N: Tensor
    step_sum_ND: Tensor
    """This rank's tokens per code since the last step: their number, and their sum."""

    def __init__(self, *, codes: int, dim: int, tokens: int):
        super().__init__(codes=codes, dim=dim, tokens=tokens)
        spread = 1.0 / codes
        self.register_buffer("codebook_ND", torch.empty(codes, dim).uniform_(-spread, spread))
        self.register_buffer("size_N", torch.ones(codes))
        self.register_buffer("step_size_N", torch.zeros(codes), persistent=False)
        self.register_buffer("step_sum_ND", torch.zeros(codes, dim), persistent=False)
        self._commitment: Tensor | None = None

    def quantise(self, x_BKD: Tensor) -> Quantised:
        """Return the nearest codes; in training add up for them, and keep the commitment for `auxiliary_loss`."""
        codes_BK = self.nearest(x_BKD)
        nearest_BKD = self.codebook_ND[codes_BK]
        if not self.training:
            return Quantised(nearest_BKD, codes_BK)
        self._add_up(x_BKD.detach().flatten(0, 1), codes_BK.flatten())
        self._commitment = COMMITMENT * F.mse_loss(x_BKD, nearest_BKD)
        return Quantised(rotate_to(x_BKD, nearest_BKD), codes_BK)

    def nearest(self, x_BKD: Tensor) -> Tensor:
        """Return the codes at the smallest Euclidean distance."""
        distance_BKN = (x_BKD.detach().unsqueeze(2) - self.codebook_ND).square().sum(dim=-1)
        return distance_BKN.argmin(dim=-1)

    def auxiliary_loss(self) -> Tensor:
        """Return the weighted commitment of the last batch."""
        return super().auxiliary_loss() if self._commitment is None else self._commitment

    def centres(self) -> Tensor:
        """Return the codebook."""
        return self.codebook_ND

    def after_step(self, step: int, total_steps: int) -> dict[str, float]:
        """Move the codes towards the mean of their tokens on all ranks, then watch and heal."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.step_size_N)
            dist.all_reduce(self.step_sum_ND)
        self.size_N.lerp_(self.step_size_N, 1.0 - DECAY)
        pull_ND = self.step_sum_ND - self.step_size_N[:, None] * self.codebook_ND
        self.codebook_ND += (1.0 - DECAY) * pull_ND / self.size_N[:, None].clamp(min=_SMALLEST_SIZE)
        self.step_size_N.zero_()
        self.step_sum_ND.zero_()
        return super().after_step(step, total_steps)

    def revive(self, dead_N: Tensor, fresh_RD: Tensor) -> None:
        """Overwrite codes, with the weight of one token each, so that they adapt at once."""
        dead_N = dead_N.to(self.codebook_ND.device)
        self.codebook_ND[dead_N] = fresh_RD.to(self.codebook_ND)
        self.size_N[dead_N] = 1.0

    def _add_up(self, x_TD: Tensor, codes_T: Tensor) -> None:
        member_TN = (codes_T[:, None] == torch.arange(self.codes, device=x_TD.device)).float()
        self.step_size_N += member_TN.sum(dim=0)
        self.step_sum_ND += member_TN.T @ x_TD
