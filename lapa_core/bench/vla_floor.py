# SPDX-License-Identifier: Apache-2.0
"""The least time that a frame can take: bytes that must be read, operations that must be done, over measured rates.

A pass over one position reads every weight once and computes next to nothing with it; the frame's tokenizer and the
pass over the prefix compute much with each weight. The floor is the sum; no pass is as fast as its bound.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

_COPIED_BYTES = {"cuda": 2**31, "cpu": 2**27}
"""Size of the copied tensor: many times a cache."""
_LOOKS_UP = ("embedding", "index_select")
"""Operations that read a few rows of a table only."""


class Floor(NamedTuple):
    """Seconds that the parts of a frame take at least."""

    compute_s: float
    """Tokenizer and prefix: floating-point operations over the measured rate of matrix products."""
    read_s: float
    """Tokens after the first: bytes of weights over the measured copy bandwidth."""

    @property
    def total_s(self) -> float:
        """Sum of the parts [s]."""
        return self.compute_s + self.read_s


class _Reads(TorchDispatchMode):
    """Collects the parameters that operations read in full."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self._known = {p.untyped_storage().data_ptr(): p for p in model.parameters()}
        self.found: dict[int, Tensor] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function.overloadpacket.__name__ not in _LOOKS_UP:
            for argument in args:
                if isinstance(argument, Tensor):
                    place = argument.untyped_storage().data_ptr()
                    if place in self._known:
                        self.found[place] = self._known[place]
        return function(*args, **(kwargs or {}))


def weight_bytes_read(model: nn.Module, work: Callable[[], object]) -> int:
    """Return the bytes of the parameters that `work` reads, each counted once."""
    with _Reads(model) as reads:
        work()
    return sum(p.numel() * p.element_size() for p in reads.found.values())


def operations_of(work: Callable[[], object]) -> int:
    """Return the floating-point operations of `work`, as torch's FlopCounterMode sees them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def wall_s(work: Callable[[], object], device: str) -> float:
    """Return how long `work` takes until the device has done it [s]."""
    gpu = device.startswith("cuda")
    if gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median_s(work: Callable[[], object], device: str, rounds: int = 7) -> float:
    """Return the median time of some rounds after one that warms up [s]."""
    return statistics.median([wall_s(work, device) for _ in range(rounds + 1)][1:])


def copy_bandwidth(device: str) -> float:
    """Return the bytes per second, read and written, of copying a large tensor."""
    size = _COPIED_BYTES["cuda" if device.startswith("cuda") else "cpu"]
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_s(lambda: target.copy_(source), device)


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Return the operations per second that square matrix products reach."""
    side, repeat = (8192, 10) if device.startswith("cuda") else (1024, 1)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 * repeat / median_s(lambda: [a @ b for _ in range(repeat)], device)
