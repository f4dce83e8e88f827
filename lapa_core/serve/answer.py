# SPDX-License-Identifier: Apache-2.0
"""One client's side of the server: its own `Policy` over the shared model, and bytes in, bytes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.policy import Decision, Policy, PolicyStep
from lapa_core.serve.batch import Asked, Batcher, Timing
from lapa_core.serve.schema import DECISION, REQUEST, Inputs, parse_request
from lapa_core.serve.wire import pack
from lapa_core.vla.history import CodeMemory


class SharedEngine:
    """The `Engine` of one client's policy: asks the batcher and keeps its last answer."""

    decision: Decision
    timing: Timing

    def __init__(self, batcher: Batcher, gone: Callable[[], bool]):
        """Take the batcher; `gone` tells whether the client has left."""
        self._batcher, self._gone = batcher, gone

    def step(self, frame_SS3: NDArray[np.uint8], instruction: str) -> Decision:
        """Return the decision on one frame; see `Batcher.ask`."""
        return self.step_with(frame_SS3, instruction, {})

    def step_with(
        self, frame_SS3: NDArray[np.uint8], instruction: str, extra: Mapping[str, NDArray[Any]]
    ) -> Decision:
        """Return the decision on one frame and what there is beside it; see `Batcher.ask`."""
        asked = Asked(frame_SS3, instruction, extra)
        self.decision, self.timing = self._batcher.ask(asked, self._gone)
        return self.decision


class Session:
    """What remembers one client: a policy of its own, so that no client's memory reaches another's robot."""

    def __init__(self, batcher: Batcher, config: dict[str, Any], gone: Callable[[], bool]):
        """Make the client's policy from the checkpoint's config."""
        self._engine = SharedEngine(batcher, gone)
        self._policy = Policy(self._engine, config, memory=CodeMemory.of(config))
        self._inputs = Inputs.of(config)
        self._previous_s: float | None = None

    def answer(self, data: bytes | str) -> bytes:
        """Return the answer to one message.

        Raises:
            LapaError: the message is refused, or the model cannot answer it.
        """
        begun_s = time.monotonic()
        request = parse_request(data, self._inputs)
        step = self._policy.act(request.image_HWC, request.prompt, request.extra)
        timing = self._engine.timing
        times: dict[str, float] = {
            "infer_ms": timing.infer_s * 1e3,
            "wait_ms": timing.wait_s * 1e3,
            "batch": timing.batch,
        }
        if self._previous_s is not None:
            times["prev_total_ms"] = self._previous_s * 1e3
        answer: dict[str, Any] = {"actions": _chunk(step), "server_timing": times}
        if request.number is not None:  # a client of ours, which has a `Policy` of its own
            answer[REQUEST] = request.number
            answer[DECISION] = _fields(self._engine.decision)
        self._previous_s = time.monotonic() - begun_s
        return pack(answer)


def _chunk(step: PolicyStep) -> NDArray[np.float64]:
    """Return the command and what a continuous head predicts after it, (H, 7)."""
    now_17 = step.delta.to_array()[None]
    return now_17 if step.chunk_H7 is None else np.concatenate([now_17, step.chunk_H7[1:]])


def _fields(decision: Decision) -> dict[str, Any]:
    latent = None if decision.latent is None else list(decision.latent)
    return {**decision._asdict(), "latent": latent}
