# SPDX-License-Identifier: Apache-2.0
"""Decoded clips in memory that worker processes share with the trainer.

The memory is an anonymous file: it has no name in `/dev/shm`, is not bound by its size, and is gone with the last
process that has it open, however that ended. Nothing is pickled but requests and answers of some hundred bytes.
Imports numpy, and av where it decodes.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import subprocess
import sys
import time
from collections import deque
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lapa_core.data.clip_frames import FrameRequest
from lapa_core.data.clip_worker import READY, decode_into
from lapa_core.data.scaled_video import SquareScaler
from lapa_core.errors import DataError, SetupError

log = logging.getLogger(__name__)

_DEATHS = 3
"""A request during which so many workers died is given up."""
_START_S = 120.0
"""A worker may take so long to start on a busy machine [s]."""
_QUEUE = 32
"""Requests that wait at one worker; what a pipe takes without blocking."""


class _Job(NamedTuple):
    ticket: int
    slot: int
    request: FrameRequest
    deaths: int


class _Worker:
    """One process, the connection to it, and what it has been given."""

    def __init__(self, memory_fd: int, shape: tuple[int, ...]) -> None:
        self.connection, theirs = Pipe()
        words = [str(number) for number in (theirs.fileno(), memory_fd, *shape)]
        package_parent = str(Path(__file__).resolve().parents[2])
        search = os.pathsep.join([package_parent, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lapa_core.data.clip_worker", *words],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), memory_fd),
            env={**os.environ, "PYTHONPATH": search},
        )
        theirs.close()
        self.started, self.begun_s = False, time.monotonic()
        self.jobs: dict[int, _Job] = {}

    def close(self) -> int:
        """End the process and return its exit status."""
        self.connection.close()
        self.process.terminate()
        return self.process.wait()


class ClipPool:
    """Slots of decoded frames, and the processes that fill them.

    Args:
        slots: number of slots.
        frames: most frames in a slot.
        image_px: side of a frame [px].
        workers: processes that decode; 0 decodes in this process when a result is waited for.
        timeout_s: a worker that has not answered for so long is ended and its work given to another [s].
    """

    def __init__(
        self, *, slots: int, frames: int, image_px: int, workers: int, timeout_s: float = 300.0
    ) -> None:
        self.shape = (slots, frames, image_px, image_px, 3)
        self.timeout_s = timeout_s
        self.deaths = 0
        self._fd = os.memfd_create("lapa-clips")
        os.ftruncate(self._fd, int(np.prod(self.shape)))
        self._memory = mmap.mmap(self._fd, int(np.prod(self.shape)))
        self.slots_NFSSC = np.frombuffer(self._memory, np.uint8).reshape(self.shape)
        self._waiting: deque[_Job] = deque()
        self._done: dict[int, str] = {}
        self._scaler = SquareScaler(image_px)
        self._workers = [_Worker(self._fd, self.shape) for _ in range(workers)]
        self._inline = not workers

    def submit(self, ticket: int, slot: int, request: FrameRequest) -> None:
        """Ask for frames in a slot; tickets are handled about in the order in which they are given."""
        self._waiting.append(_Job(ticket, slot, request, 0))
        if not self._inline:
            self._receive(0.0)
            self._hand_out()

    def finished(self) -> dict[int, str]:
        """Return, once, the tickets that were done since the last call, with the reason where one failed."""
        if not self._inline:
            self._receive(0.0)
            self._hand_out()
        done, self._done = self._done, {}
        return done

    def cancel(self) -> set[int]:
        """Forget the requests that no worker has begun or been given; return their tickets."""
        tickets = {job.ticket for job in self._waiting}
        self._waiting.clear()
        return tickets

    def wait(self, ticket: int | None) -> None:
        """Return when something new is done; without workers the ticket is done here.

        Raises:
            SetupError: a worker cannot be started.
        """
        if self._inline:
            job = next(job for job in self._waiting if job.ticket == ticket)
            self._waiting.remove(job)
            self._done[job.ticket] = decode_into(
                job.request, self._scaler, self.slots_NFSSC[job.slot]
            )
            return
        self._hand_out()
        while not self._done:
            heard = self._receive(self.timeout_s)
            if not heard:
                self._end_stuck()
            self._hand_out()

    def pids(self) -> list[int]:
        """Return the ids of the live processes."""
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """End the processes and give the memory back; a second call does nothing."""
        for worker in self._workers:
            worker.close()
        self._workers = []
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.slots_NFSSC = np.zeros((0, *self.shape[1:]), np.uint8)
            with contextlib.suppress(BufferError):  # a traceback looks at a slot: freed after that
                self._memory.close()

    def _hand_out(self) -> None:
        """Give waiting jobs to the workers with the fewest."""
        while self._waiting and self._workers:
            worker = min(self._workers, key=lambda worker: len(worker.jobs))
            if len(worker.jobs) >= _QUEUE:
                return
            job = self._waiting.popleft()
            worker.jobs[job.ticket] = job
            try:
                worker.connection.send((job.ticket, job.slot, job.request))
            except (BrokenPipeError, ConnectionResetError):
                self._replace(worker)

    def _receive(self, timeout_s: float) -> bool:
        """Take answers, wait for the first one at most so long [s], and return whether one came."""
        by_connection = {worker.connection: worker for worker in self._workers}
        heard = False
        while ready := wait(list(by_connection), timeout_s):
            heard, timeout_s = True, 0.0
            for connection in ready:
                assert isinstance(connection, Connection)
                worker = by_connection[connection]
                try:
                    ticket, reason = connection.recv()
                except (EOFError, ConnectionError):
                    del by_connection[connection]
                    self._replace(worker)
                    continue
                if ticket == READY:
                    worker.started = True
                else:
                    del worker.jobs[ticket]
                    self._done[ticket] = reason
        return heard

    def _replace(self, worker: _Worker) -> None:
        """Start a worker in the place of a dead one and give its jobs out again, except those that keep killing."""
        status = worker.close()
        if not worker.started:
            raise SetupError(
                f"a worker process ended with status {status} before it started; its output says why"
            )
        self.deaths += 1
        log.warning("a decoding process ended with status %s; another takes over", status)
        self._workers[self._workers.index(worker)] = _Worker(self._fd, self.shape)
        # A worker does its jobs in order, so the first of them is what it died of.
        for place, job in enumerate(reversed(worker.jobs.values())):
            dies = job.deaths + (place == len(worker.jobs) - 1)
            if dies >= _DEATHS:
                self._done[job.ticket] = f"{dies} decoding processes died reading it"
            else:
                self._waiting.appendleft(job._replace(deaths=dies))

    def _end_stuck(self) -> None:
        """End every worker that has work and says nothing, unless it is only starting."""
        log.warning("decoding processes gave no answer for %g s", self.timeout_s)
        for worker in self._workers:
            starting = not worker.started and time.monotonic() - worker.begun_s < _START_S
            if worker.jobs and not starting:
                worker.process.kill()


def check_memory(num_bytes: int) -> None:
    """Refuse a pool that does not fit into the machine's memory beside those of the other processes of torchrun."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    pools = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    if pools * num_bytes > 0.8 * total:
        raise DataError(
            f"{pools} x {num_bytes / 2**30:.1f} GiB are needed for clips and this machine has {total / 2**30:.1f}; "
            "lower batch_size, image_px, pairs_per_visit or slots_per_sample"
        )
