# SPDX-License-Identifier: Apache-2.0
"""Quantisers: how the continuous tokens of a frame pair become codes. Each is one small class behind one protocol."""

from lapa_core.laq.config import QuantiserName
from lapa_core.laq.quantise.base import Quantised, Quantiser
from lapa_core.laq.quantise.continuous import Continuous
from lapa_core.laq.quantise.fsq import Fsq
from lapa_core.laq.quantise.nsvq import Nsvq
from lapa_core.laq.quantise.vq_ema import VqEma

__all__ = ["QUANTISERS", "Quantised", "Quantiser", "build_quantiser"]

QUANTISERS: dict[QuantiserName, type[Quantiser]] = {
    "nsvq": Nsvq,
    "vq_ema": VqEma,
    "fsq": Fsq,
    "none": Continuous,
}
"""Name in a configuration -> class."""


def build_quantiser(name: QuantiserName, *, codes: int, dim: int, tokens: int) -> Quantiser:
    """Build a quantiser of `tokens` tokens of width `dim` into `codes` codes each."""
    return QUANTISERS[name](codes=codes, dim=dim, tokens=tokens)
