# SPDX-License-Identifier: Apache-2.0
"""Normal noise as a pure function of (seed, step, which sample of the joint batch), whatever the number of ranks.

A generator's draws depend on who drew before; a hash does not. So two ranks get together the noise that one process
gets for the joint batch, a resumed run gets that of the straight one, and a compiled graph stays in one piece.
The hash is a 32-bit multiply-xorshift (constants of Wellons' hash-prospector), in int64 without overflow.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_WORD = 0xFFFFFFFF


def noise_key(seed: int, step: int) -> list[int]:
    """Return two 32-bit words that stand for one step of one run."""
    return np.random.SeedSequence([seed, step]).generate_state(2, np.uint32).tolist()


def _hash(x: Tensor) -> Tensor:
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _WORD
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _WORD
    return x ^ (x >> 15)


def keyed_normal(like: Tensor, key_2: Tensor, first_sample: int) -> Tensor:
    """Return float32 noise N(0, 1) of the shape of `like`, whose first axis starts at `first_sample`."""
    numbers = like[0].numel()
    index = torch.arange(like.numel(), device=like.device) + first_sample * numbers
    first = _hash(_hash((index + key_2[0]) & _WORD) ^ key_2[1])
    second = _hash((first + 0x9E3779B9) & _WORD)
    radius_uniform = ((first >> 8) + 1).float() / 2**24  # in (0, 1]
    angle = (second >> 8).float() * (2.0 * math.pi / 2**24)
    return ((-2.0 * radius_uniform.log()).sqrt() * angle.cos()).view(like.shape)
