# SPDX-License-Identifier: Apache-2.0
"""The codes of earlier frames as vectors that stand in a prompt.

Shapes: B frames, M earlier codes, K latent tokens, D width of a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapa_core.vla.chunk import INIT_STD


class EarlierCodes(nn.Module):
    """A table of vectors for each place (m, k), whose first row stands for a time before the episode."""

    start_MK: Tensor

    def __init__(self, most: int, tokens: int, codes: int, width: int, scale: float = 1.0):
        """Make fresh tables.

        Args:
            most: M.
            tokens: K.
            codes: values that a code can take.
            width: D.
            scale: of the vectors, for backbones that scale their own (Gemma).
        """
        super().__init__()
        self.shape, self.scale = (most, tokens), scale
        self.embedding = nn.Embedding(most * tokens * (codes + 1), width)
        nn.init.normal_(self.embedding.weight, std=INIT_STD)
        start_MK = torch.arange(most * tokens).unflatten(0, self.shape) * (codes + 1)
        self.register_buffer("start_MK", start_MK, persistent=False)

    @property
    def places(self) -> int:
        """M * K, the vectors of a frame."""
        return self.shape[0] * self.shape[1]

    def forward(self, codes_BMK: Tensor) -> Tensor:
        """Return (B, M * K, D) of codes from `NO_CODE` up."""
        vectors_BMKD: Tensor = self.embedding(codes_BMK + 1 + self.start_MK)
        return vectors_BMKD.flatten(1, 2) * self.scale
