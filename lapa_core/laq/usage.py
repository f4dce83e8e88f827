# SPDX-License-Identifier: Apache-2.0
"""How many codes are really in use: perplexity, the health check of every quantiser. Imports numpy only."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

COLLAPSE_SHARE = 0.25
"""A token whose perplexity is below this share of its codes counts as collapsed."""


@dataclass(frozen=True, kw_only=True)
class CodeUsage:
    """Use of the codes over a set of pairs."""

    perplexity_per_token: tuple[float, ...]
    """exp(entropy) of each token's codes: N when all are used equally, 1 when one code is used."""
    joint_perplexity: float
    """exp(entropy) of the tuples of all tokens together."""
    joint_count: int
    """Number of different tuples seen."""
    codes: int
    """N, codes per token."""

    @property
    def collapsed(self) -> bool:
        """Whether the worst token uses too few of its codes to carry an action."""
        return min(self.perplexity_per_token) < max(1.5, COLLAPSE_SHARE * self.codes)


def _perplexity(counts: NDArray[np.int64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def code_usage(codes_BK: NDArray[np.int64], codes: int) -> CodeUsage:
    """Count the codes (B, K) of many pairs; `codes` is N."""
    _, joint = np.unique(codes_BK, axis=0, return_counts=True)
    return CodeUsage(
        perplexity_per_token=tuple(
            _perplexity(np.bincount(token, minlength=codes)) for token in codes_BK.T
        ),
        joint_perplexity=_perplexity(joint),
        joint_count=len(joint),
        codes=codes,
    )


def usage_of_counts(codes_KN: NDArray[np.int64], joint_J: NDArray[np.int64]) -> CodeUsage:
    """Make the figures from counts per token and code, and per tuple."""
    return CodeUsage(
        perplexity_per_token=tuple(_perplexity(token) for token in codes_KN),
        joint_perplexity=_perplexity(joint_J),
        joint_count=int(np.count_nonzero(joint_J)),
        codes=codes_KN.shape[1],
    )


def warn_if_collapsed(usage: CodeUsage, when: str = "after training") -> bool:
    """Log one warning that says what to do when the codes have collapsed; return whether they have."""
    if usage.collapsed:
        worst = int(np.argmin(usage.perplexity_per_token))
        log.warning(
            "the latent codes have collapsed %s: token %d has perplexity %.2f of %d codes. Check that the frames of "
            "a pair differ (gap_s), train longer, or choose the conv design or another quantiser",
            when,
            worst,
            usage.perplexity_per_token[worst],
            usage.codes,
        )
    return usage.collapsed
