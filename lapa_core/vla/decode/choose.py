# SPDX-License-Identifier: Apache-2.0
"""How one token is chosen from its logits, without waiting for the device.

No id ends a sequence: the number of tokens is the head's. (The authors' release decodes latent codes with an
end-of-sequence id of 2, so that code 2 turns every later code into 0: facts/lapa.md 2.7.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lapa_core.errors import ContractError

Choose = Callable[[Tensor], Tensor]
"""Logits (B, N), -inf where an id is not allowed, to ids (B,) int64."""


def greedy(logits_BN: Tensor) -> Tensor:
    """Return the likeliest ids (B,)."""
    return logits_BN.argmax(dim=-1)


@dataclass(frozen=True)
class Sample:
    """Draw from the softmax of logits / temperature, by exponential races: the first arrival wins.

    The draw is one elementwise pass and an argmax, so that it can be recorded in a CUDA graph, where each replay
    goes on in the generator's stream.
    """

    generator: torch.Generator
    """On the device of the logits; advanced by every call."""
    temperature: float = 1.0
    """Above 0; below 1 sharpens."""
    top_k: int = 0
    """Only so many of the likeliest ids are drawn from (ties with the last are kept); 0: all."""

    def __post_init__(self) -> None:
        if not (self.temperature > 0.0 and math.isfinite(self.temperature)):
            raise ContractError(
                f"temperature is {self.temperature}; it must be positive (`greedy` is what 0 would mean)"
            )
        if self.top_k < 0:
            raise ContractError(f"top_k is {self.top_k}; give at least 1, or 0 for all ids")

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
