# SPDX-License-Identifier: Apache-2.0
"""Finite scalar quantisation (Mentzer et al. 2023): a few numbers, each rounded to a few levels. Its codes are a grid.

Nothing is learned in it, so nothing can die; the levels lie symmetrically about zero (Parker et al. 2024, section
3.2), so a motion and its reverse get mirrored codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lapa_core.errors import ContractError
from lapa_core.laq.quantise.base import Quantised, Quantiser

MOST_LEVELS = 8


def levels(codes: int) -> list[int]:
    """Split a number of codes into as few levels as possible, each 2 to 8 and as equal as they come, largest first.

    8 is 4 x 2, 64 is 8 x 8, 1000 is 8 x 5 x 5 x 5; a single number is split where it can be.

    Raises:
        ContractError: the number has a prime factor above 8.
    """
    splits = _splits(codes, MOST_LEVELS)
    if not splits:
        raise ContractError(
            f"codes is {codes}; the quantiser fsq needs a product of numbers from 2 to {MOST_LEVELS}, "
            "such as 8, 16, 64, 240 or 1000"
        )
    several = [split for split in splits if len(split) > 1] or splits
    return min(several, key=lambda split: (len(split), split[0] - split[-1]))


def _splits(codes: int, largest: int) -> list[list[int]]:
    """All ways to write a number as a product of non-increasing factors from 2 to `largest`."""
    found = [[codes]] if 2 <= codes <= largest else []
    for first in range(2, min(largest, codes // 2) + 1):
        if codes % first == 0:
            found += [[first, *rest] for rest in _splits(codes // first, first)]
    return found


class Fsq(Quantiser):
    """Rounded scalars between two linear maps."""

    def __init__(self, *, codes: int, dim: int, tokens: int):
        from vector_quantize_pytorch import FSQ  # as slow to import as torch

        super().__init__(codes=codes, dim=dim, tokens=tokens)
        with torch.device("cpu"):  # the library reads its levels back, which the meta device cannot
            self.fsq = FSQ(levels(codes), dim=dim, preserve_symmetry=True)

    def quantise(self, x_BKD: Tensor) -> Quantised:
        """Return the rounded tokens, with straight-through gradients."""
        vectors_BKD, codes_BK = self.fsq(x_BKD)
        return Quantised(vectors_BKD, codes_BK.long())

    def nearest(self, x_BKD: Tensor) -> Tensor:
        """Return the number of the grid point that each token is rounded to."""
        return self.fsq(x_BKD)[1].long()

    def centres(self) -> Tensor:
        """Return the vectors of the grid's points, as the decoder gets them."""
        device = self.counts.codes_KN.device
        return self.fsq.indices_to_codes(torch.arange(self.codes, device=device))

    def revive_dead(self, seed: int) -> int:
        """A grid's points cannot be moved."""
        return 0
