# SPDX-License-Identifier: Apache-2.0
"""One thread that owns the model and answers the requests of several clients in one pass. No sockets here."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import LapaError, ServerError
from lapa_core.policy import Decision, Engine, decide

log = logging.getLogger(__name__)


@runtime_checkable
class BatchEngine(Protocol):
    """An engine that takes several frames at once; others are asked one by one."""

    def step_many(
        self,
        frames_BSS3: NDArray[np.uint8],
        instructions: Sequence[str],
        extra: Mapping[str, NDArray[Any]] | None = None,
    ) -> list[Decision]:
        """Return one decision per preprocessed square frame and, batch first, what there is beside it."""


class Asked(NamedTuple):
    """One question to the model."""

    frame_SS3: NDArray[np.uint8]
    """Preprocessed square frame."""
    instruction: str
    """What to do, in words."""
    extra: Mapping[str, NDArray[Any]]
    """Further cameras and the state, for a model that takes them; the same names in every question to it."""


class Timing(NamedTuple):
    """How long one request took."""

    wait_s: float
    """In the queue [s]."""
    infer_s: float
    """In the model [s]."""
    batch: int
    """Requests in the same pass."""


class _Pending(NamedTuple):
    asked: Asked
    gone: Callable[[], bool]
    arrived_s: float
    answer: Future[tuple[Decision, Timing]]


class Batcher:
    """Collects requests and answers them; callers of `ask` may be on any thread."""

    def __init__(self, engine: Engine | BatchEngine, *, max_batch: int, wait_s: float):
        """Start the model's thread; see `ServeConfig` for the two numbers."""
        self._engine, self._max_batch, self._wait_s = engine, max_batch, wait_s
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._closed, self._lock = False, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked, gone: Callable[[], bool]) -> tuple[Decision, Timing]:
        """Wait for the answer to one question; `gone` tells whether nobody waits for it any more.

        Raises:
            LapaError: the model refuses it.
            ServerError: nobody waits any more, the model failed, or the batcher is closed.
        """
        pending = _Pending(asked, gone, time.monotonic(), Future())
        with self._lock:  # behind the end of the queue nobody would ever answer
            if self._closed:
                raise ServerError("the server ends")
            self._queue.put(pending)
        return pending.answer.result()

    def close(self) -> None:
        """Answer what waits and end the thread."""
        with self._lock:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            taken, last = self._collect(first)
            self._answer([pending for pending in taken if not _dropped(pending)])
            if last:
                return

    def _collect(self, first: _Pending) -> tuple[list[_Pending], bool]:
        """Return the requests of one pass, and whether no more will come."""
        taken, until_s = [first], time.monotonic() + self._wait_s
        while len(taken) < self._max_batch:
            try:
                left_s = until_s - time.monotonic()
                more = self._queue.get(timeout=left_s) if left_s > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return taken, True
            taken.append(more)
        return taken, False

    def _answer(self, taken: list[_Pending]) -> None:
        if not taken:
            return
        begun_s = time.monotonic()
        try:
            decisions = self._decide([each.asked for each in taken])
            decided = list(zip(taken, decisions, strict=True))
        except LapaError as error:
            if len(taken) == 1:
                _fail(taken, error)
                return
            for pending in taken:  # each alone says whose fault it is
                self._answer([pending])
            return
        except Exception:
            # Broad on purpose: a model may raise anything, and every client waits for this one thread. They are
            # answered, the log has the traceback, and the next pass may do better.
            log.exception("the model failed on %d requests", len(taken))
            _fail(taken, ServerError("the model failed; the server's log says why"))
            return
        infer_s = time.monotonic() - begun_s
        for pending, decision in decided:
            timing = Timing(begun_s - pending.arrived_s, infer_s, len(taken))
            pending.answer.set_result((decision, timing))

    def _decide(self, asked: list[Asked]) -> list[Decision]:
        if not isinstance(self._engine, BatchEngine):
            return [decide(self._engine, *each) for each in asked]
        frames, instructions, extras = zip(*asked, strict=True)
        extra = {name: np.stack([each[name] for each in extras]) for name in extras[0]}
        return self._engine.step_many(np.stack(frames), instructions, extra)


def _dropped(pending: _Pending) -> bool:
    """Drop a request that nobody waits for."""
    if pending.gone():
        pending.answer.set_exception(ServerError("the client is gone"))
        return True
    return False


def _fail(taken: list[_Pending], error: LapaError) -> None:
    for pending in taken:
        pending.answer.set_exception(error)
