# SPDX-License-Identifier: Apache-2.0
"""A computation over fixed buffers, recorded as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch

_WARM_UPS = 2
"""Runs before recording, in which libraries choose kernels, make handles and compile."""


class Recorded:
    """One CUDA graph."""

    def __init__(
        self, work: Callable[[], None], device: torch.device, generator: torch.Generator | None
    ):
        """Record `work`, which reads and writes the same tensors whenever it runs.

        Args:
            work: launches kernels on the current stream of `device` and waits for nothing.
            device: where.
            generator: a CUDA generator that `work` draws from; each replay draws on. Recording leaves it as it was.
        """
        self._device = device
        self._graph = torch.cuda.CUDAGraph()
        state = None if generator is None else generator.get_state()
        with torch.cuda.device(device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    work()
            torch.cuda.current_stream().wait_stream(side)
            if generator is not None:
                self._graph.register_generator_state(generator)
            with torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local"):
                work()
        if generator is not None and state is not None:
            generator.set_state(state)

    def replay(self) -> None:
        """Launch it on the current stream of its device."""
        with torch.cuda.device(self._device):
            self._graph.replay()
