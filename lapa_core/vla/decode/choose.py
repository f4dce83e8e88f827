# SPDX-License-Identifier: Apache-2.0
"""How one token is chosen from its logits, without waiting for the device.

No id ends a sequence: the number of tokens is the head's. (The authors' release decodes latent codes with an
end-of-sequence id of 2, so that code 2 turns every later code into 0: facts/lapa.md 2.7.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lapa_core.errors import ContractError

Choose = Callable[[Tensor], Tensor]
"""Logits (B, N), -inf where an id is not allowed, to ids (B,) int64."""


def greedy(logits_BN: Tensor) -> Tensor:
    """Return the likeliest ids (B,)."""
    return logits_BN.argmax(dim=-1)


class Sample:
    """Draw from the softmax of logits / temperature, by exponential races: the first arrival wins.

    The draw is one elementwise pass and an argmax, so that it can be recorded in a CUDA graph, in which each replay goes
    on in the generator's stream.
    """

    def __init__(self, generator: torch.Generator, *, temperature: float = 1.0, top_k: int = 0):
        """Take the randomness from `generator`, on the device of the logits.

        Args:
            generator: advanced by every call.
            temperature: above 0; below 1 sharpens.
            top_k: only the so many likeliest ids are drawn from (ties with the last are kept); 0: all.

        Raises:
            ContractError: temperature or top_k out of range.
        """
        if not (temperature > 0.0 and math.isfinite(temperature)):
            raise ContractError(
                f"temperature is {temperature}; it must be positive (`greedy` is what 0 would mean)"
            )
        if top_k < 0:
            raise ContractError(f"top_k is {top_k}; give at least 1, or 0 for all ids")
        self.generator = generator
        self.temperature = temperature
        self.top_k = top_k

    def __call__(self, logits_BN: Tensor) -> Tensor:
        """Return drawn ids (B,)."""
        logits_BN = logits_BN.float() / self.temperature
        if 0 < self.top_k < logits_BN.shape[-1]:
            least_B1 = logits_BN.topk(self.top_k).values[:, -1:]
            logits_BN = logits_BN.masked_fill(logits_BN < least_B1, -torch.inf)
        arrival_BN = torch.empty_like(logits_BN).exponential_(generator=self.generator)
        return (logits_BN.softmax(dim=-1) / arrival_BN).argmax(dim=-1)


def make_choose(temperature: float, generator: torch.Generator, *, top_k: int = 0) -> Choose:
    """Return `greedy` at temperature 0, and a `Sample` above it.

    Raises:
        ContractError: temperature or top_k out of range.
    """
    return greedy if temperature == 0.0 else Sample(generator, temperature=temperature, top_k=top_k)
