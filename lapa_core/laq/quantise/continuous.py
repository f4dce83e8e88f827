# SPDX-License-Identifier: Apache-2.0
"""No quantiser in training: the decoder gets the continuous tokens, and k-means makes the codes afterwards.

No codebook can collapse this way, but the width of a token is then all that keeps it from carrying the frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lapa_core.laq.kmeans import kmeans
from lapa_core.laq.quantise.base import Quantised, Quantiser

_FAR = 1e6
"""Coordinate of the unused rest of a codebook, when the data hold fewer points than codes."""


class Continuous(Quantiser):
    """Tokens as they are; their clusters are the codes."""

    quantises_in_training = False
    codebook_ND: Tensor

    def __init__(self, *, codes: int, dim: int, tokens: int):
        super().__init__(codes=codes, dim=dim, tokens=tokens, save_counts=False)
        self.register_buffer("codebook_ND", torch.zeros(codes, dim))

    def quantise(self, x_BKD: Tensor) -> Quantised:
        """Return the tokens unchanged, and the nearest cluster of each."""
        return Quantised(x_BKD, self.nearest(x_BKD))

    def nearest(self, x_BKD: Tensor) -> Tensor:
        """Return the clusters at the smallest Euclidean distance."""
        distance_TN = torch.cdist(x_BKD.detach().flatten(0, 1), self.codebook_ND)
        return distance_TN.argmin(dim=1).view(x_BKD.shape[:2])

    def vectors(self, codes_BK: Tensor) -> Tensor:
        """Return the centres of these clusters."""
        return self.codebook_ND[codes_BK]

    def centres(self) -> Tensor:
        """Return the cluster centres; codes that were never needed count as the origin."""
        far_N1 = (self.codebook_ND >= _FAR).any(dim=1, keepdim=True)
        return self.codebook_ND.masked_fill(far_N1, 0.0)

    @torch.no_grad()
    def fit(self, vectors_BKD: Tensor, seed: int) -> None:
        """Cluster the tokens of the training pairs."""
        centres_ND = kmeans(vectors_BKD.flatten(0, 1).cpu(), self.codes, seed=seed)
        self.codebook_ND[: len(centres_ND)] = centres_ND.to(self.codebook_ND)
        self.codebook_ND[len(centres_ND) :] = _FAR
