# SPDX-License-Identifier: Apache-2.0
"""The latent and the action head of a sequence model: one linear layer without bias each, and embeddings of their own.

Shapes: B sequences, K tokens of the head, N ids, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapa_core.vla.chunk import INIT_STD


class TokenHead(nn.Module):
    """All tokens of a head share its linear layer and embeddings; what sets them apart is their position."""

    mask_KN: Tensor

    def __init__(self, width: int, mask_KN: Tensor, *, parallel: bool, scale: float = 1.0):
        """Make a fresh head.

        Args:
            width: D.
            mask_KN: bool, true where token k has the id.
            parallel: embed the K places of the answer instead of the N ids that were chosen.
            scale: of the embeddings, for backbones that scale their own (Gemma).
        """
        super().__init__()
        self.parallel, self.scale = parallel, scale
        tokens, ids = mask_KN.shape
        self.embedding = nn.Embedding(tokens if parallel else ids, width)
        self.linear = nn.Linear(width, ids, bias=False)
        self.register_buffer("mask_KN", mask_KN, persistent=False)
        for weight in (self.embedding.weight, self.linear.weight):
            nn.init.normal_(weight, std=INIT_STD)

    def queries(self) -> Tensor | None:
        """Return the embeddings (K, D) of the places; none in a head that embeds ids."""
        return self.embedding.weight * self.scale if self.parallel else None

    def embed(self, ids_B: Tensor) -> Tensor:
        """Return the embeddings (B, D) of chosen ids."""
        chosen_BD: Tensor = self.embedding(ids_B)
        return chosen_BD * self.scale

    def logits(self, hidden_BD: Tensor, k: int) -> Tensor:
        """Return float32 logits (B, N) of token k; -inf at ids that it has not."""
        logits_BN: Tensor = self.linear(hidden_BD)
        return logits_BN.float().masked_fill(~self.mask_KN[k], -torch.inf)
