# SPDX-License-Identifier: Apache-2.0
"""Vector quantisation whose codes follow their tokens as moving averages (van den Oord et al. 2017, appendix A.1).

The library's quantiser with its rotation trick (Fifty et al. 2024) carries gradients past the codes; the averages
are summed over ranks. Dead codes are left to `Quantiser`: the library refills them from the samples of one rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lapa_core.laq.quantise.base import Quantised, Quantiser, near_used

DECAY = 0.99
COMMITMENT = 0.25
"""Weight of |x - c|^2, which keeps tokens near their codes (van den Oord et al. 2017: 0.25)."""


class VqEma(Quantiser):
    """One codebook of moving averages. Build it after the process group, where there is one."""

    def __init__(self, *, codes: int, dim: int, tokens: int):
        from vector_quantize_pytorch import VectorQuantize  # as slow to import as torch

        super().__init__(codes=codes, dim=dim, tokens=tokens)
        self.vq = VectorQuantize(
            dim,
            codes,
            decay=DECAY,
            commitment_weight=COMMITMENT,
            threshold_ema_dead_code=0,
        )
        self._commitment: Tensor | None = None

    def quantise(self, x_BKD: Tensor) -> Quantised:
        """Return the nearest codes; in training move them, and keep the commitment for `auxiliary_loss`."""
        vectors_BKD, codes_BK, self._commitment = self.vq(x_BKD)
        return Quantised(vectors_BKD, codes_BK)

    def nearest(self, x_BKD: Tensor) -> Tensor:
        """Return the codes at the smallest Euclidean distance; nothing moves."""
        return self.vq(x_BKD, freeze_codebook=True)[1]

    def auxiliary_loss(self) -> Tensor:
        """Return the weighted commitment of the last batch."""
        return super().auxiliary_loss() if self._commitment is None else self._commitment

    def centres(self) -> Tensor:
        """Return the codebook."""
        return self.vq.codebook

    def revive(self, dead_N: Tensor, share_N: Tensor, generator: torch.Generator) -> None:
        """Overwrite codes, with the weight of one token each, so that they adapt at once."""
        book = self.vq._codebook
        fresh = near_used(book.embed[0], dead_N, share_N, generator).to(book.embed)
        dead_N = dead_N.to(book.embed.device)
        book.embed[0, dead_N] = fresh
        book.embed_avg[0, dead_N] = fresh
        book.cluster_size[0, dead_N] = 1.0
