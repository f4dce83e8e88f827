# SPDX-License-Identifier: Apache-2.0
"""A computation over fixed buffers, recorded as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch

_WARM_UPS = 2
"""Runs before recording, in which libraries choose kernels, make handles and compile."""


class Recorded:
    """One CUDA graph."""

    def __init__(self, work: Callable[[], None], generator: torch.Generator | None):
        """Record `work`, which reads and writes the same tensors whenever it runs.

        Args:
            work: launches kernels on the current stream and waits for nothing.
            generator: a CUDA generator that `work` draws from; each replay draws on. Recording leaves it as it was.
        """
        state = None if generator is None else generator.get_state()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        if generator is not None:
            self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph):
            work()
        if generator is not None and state is not None:
            generator.set_state(state)

    def replay(self) -> None:
        """Launch it on the current stream."""
        self._graph.replay()
