# SPDX-License-Identifier: Apache-2.0
"""NSVQ: vector quantisation trained by noise substitution, as LAPA uses it (paper, appendix A).

In training the quantisation error is replaced by random noise of the same length,

    x_hat = x + |x - c| * r / |r|,   r ~ N(0, I),   c the nearest code,

so gradients reach both x and c through the length, with no straight-through estimator and no commitment loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lapa_core.laq.quantise.base import Quantised, Quantiser
from lapa_core.laq.quantise.noise import keyed_normal, noise_key

_EPSILON = 1e-12


class Nsvq(Quantiser):
    """One codebook that the optimizer trains with everything else."""

    noise_key_2: Tensor

    def __init__(self, *, codes: int, dim: int, tokens: int, save_counts: bool = True):
        super().__init__(codes=codes, dim=dim, tokens=tokens, save_counts=save_counts)
        self.codebooks = nn.Parameter(torch.randn(codes, dim))  # (N, D), the release's name
        self.register_buffer("noise_key_2", torch.zeros(2, dtype=torch.int64), persistent=False)
        self._rank: int | None = None

    def set_step(self, *, seed: int, step: int, rank: int, world: int) -> None:
        """Key the noise; without this call it comes from torch's global generator."""
        for slot, word in zip(self.noise_key_2, noise_key(seed, step), strict=True):
            slot.fill_(word)
        self._rank = rank

    def quantise(self, x_BKD: Tensor) -> Quantised:
        """Return noise-substituted vectors in training, the nearest codes in evaluation."""
        codes_BK = self.nearest(x_BKD)
        nearest_BKD = self.codebooks[codes_BK]
        if not self.training:
            return Quantised(nearest_BKD, codes_BK)
        noise_BKD = self._noise(x_BKD)
        error_BK1 = (x_BKD - nearest_BKD).norm(dim=-1, keepdim=True)
        scale_BK1 = error_BK1 / (noise_BKD.norm(dim=-1, keepdim=True) + _EPSILON)
        return Quantised(x_BKD + scale_BK1 * noise_BKD, codes_BK)

    def nearest(self, x_BKD: Tensor) -> Tensor:
        """Return the codes at the smallest Euclidean distance."""
        distance_BKN = (x_BKD.unsqueeze(2) - self.codebooks).detach().square().sum(dim=-1)
        return distance_BKN.argmin(dim=-1)

    def centres(self) -> Tensor:
        """Return the codebook."""
        return self.codebooks

    def revive(self, dead_N: Tensor, fresh_RD: Tensor) -> None:
        """Overwrite rows of the codebook, also where FSDP has cut it into pieces."""
        book: Any = self.codebooks
        sharded = hasattr(book, "full_tensor")
        codebook_ND = book.full_tensor() if sharded else book.detach().clone()
        codebook_ND[dead_N.to(codebook_ND.device)] = fresh_RD.to(codebook_ND)
        if sharded:
            from torch.distributed.tensor import distribute_tensor

            codebook_ND = distribute_tensor(codebook_ND, book.device_mesh, book.placements)
        book.copy_(codebook_ND)

    def _noise(self, x_BKD: Tensor) -> Tensor:
        if self._rank is None:
            return torch.randn_like(x_BKD)
        return keyed_normal(x_BKD, self.noise_key_2, self._rank * len(x_BKD))
