# SPDX-License-Identifier: Apache-2.0
"""What the codes alone say, without pictures or actions: use, symmetry in time, and two controls. Imports numpy.

Shapes: P pairs, K latent tokens, N codes per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapa_core.laq.report.measure import Measured
from lapa_core.laq.usage import code_usage


@dataclass(frozen=True, kw_only=True)
class CodeFigures:
    """How the codes are used over the measured pairs."""

    codes: int
    """N, codes per position."""
    counts: tuple[tuple[int, ...], ...]
    """Pairs per position and code."""
    perplexity: tuple[float, ...]
    """exp(entropy) at each position: N when all codes are used equally, 1 when one is."""
    used: tuple[int, ...]
    """Codes that occur at all, per position."""
    joint_perplexity: float
    """exp(entropy) of the whole tuples."""
    joint_used: int
    """Different tuples seen."""
    past_future_cosine: float | None
    """Mean cosine of the latents past -> present and future -> present (S-PCFC): -1 when the model takes a reversed
    motion for the opposite one; near 1 when it describes the present frame. None without three frames in a row."""
    still_share: float
    """Share of unmoved frames (both frames the same) that get the commonest code tuple of unmoved frames."""
    still_tuple: tuple[int, ...]
    """That tuple: the model's name for no motion."""
    stranger_agreement: float
    """Share of codes that stay the same when the later frame is replaced by an unrelated one."""
    chance_agreement: float
    """Share that would stay the same if codes were drawn at random by their frequency."""

    @property
    def worst_share(self) -> float:
        """(perplexity - 1) / (codes - 1) of the least evenly used position: 0 for one code, 1 for all alike."""
        return (min(self.perplexity) - 1.0) / (self.codes - 1.0)

    @property
    def worst_used(self) -> float:
        """Share of codes that occur, at the position that uses fewest."""
        return min(self.used) / self.codes


def code_figures(measured: Measured, codes: int) -> CodeFigures:
    """Summarise the codes; `codes` is N."""
    codes_PK = measured.codes_PK
    usage = code_usage(codes_PK, codes)
    counts_KN = np.stack([np.bincount(token, minlength=codes) for token in codes_PK.T])
    still_tuple, still_share = commonest(measured.still_codes_PK)
    cosine_T = measured.cosine_T
    return CodeFigures(
        codes=codes,
        counts=tuple(tuple(row) for row in counts_KN.tolist()),
        perplexity=usage.perplexity_per_token,
        used=tuple(int(n) for n in (counts_KN > 0).sum(axis=1)),
        joint_perplexity=usage.joint_perplexity,
        joint_used=usage.joint_count,
        past_future_cosine=float(cosine_T.mean()) if len(cosine_T) else None,
        still_share=still_share,
        still_tuple=still_tuple,
        stranger_agreement=float((measured.stranger_codes_PK == codes_PK).mean()),
        chance_agreement=float(np.square(counts_KN / len(codes_PK)).sum(axis=1).mean()),
    )


def commonest(codes_PK: NDArray[np.int64]) -> tuple[tuple[int, ...], float]:
    """Return the commonest tuple and its share of the rows."""
    tuples, counts = np.unique(codes_PK, axis=0, return_counts=True)
    best = int(counts.argmax())
    return tuple(tuples[best].tolist()), float(counts[best] / len(codes_PK))
