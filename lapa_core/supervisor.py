# SPDX-License-Identifier: Apache-2.0
"""Child processes of one graph: started in order, watched, stopped in reverse order, never orphaned. No ROS imports."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from lapa_core.launcher import LAUNCHER_VARIABLE, Process

Sink = Callable[[str, str], None]
"""Takes a process's name and one line of its output; called from several threads."""

STOP_LIMIT_S = 15.0
"""Longest time a process gets to end by itself after SIGINT: an arm may have to park."""


@dataclass(frozen=True, kw_only=True)
class ProcessPlan:
    """One process to start."""

    name: str
    """For people."""
    command: Sequence[str]
    """Program and arguments."""
    ends_all: bool = False
    """Whether everything ends with it."""


class Supervisor:
    """Runs processes, each in its own group; a context manager that leaves none behind."""

    def __init__(self, plans: Sequence[ProcessPlan], environ: Mapping[str, str], sink: Sink):
        self._plans, self._sink = plans, sink
        self._environ = {**environ, LAUNCHER_VARIABLE: Process.this().text()}
        self._processes: list[tuple[ProcessPlan, subprocess.Popen[str]]] = []
        self._readers: list[threading.Thread] = []
        self._reported: set[str] = set()

    def __enter__(self) -> Supervisor:
        try:
            for plan in self._plans:
                process = subprocess.Popen(
                    list(plan.command), env=self._environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1,
                    start_new_session=True, preexec_fn=_begin,
                )  # fmt: skip
                self._processes.append((plan, process))
                reader = threading.Thread(target=self._read, args=(plan.name, process), daemon=True)
                reader.start()
                self._readers.append(reader)
        except OSError:  # __exit__ is not called then
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wait(self, interrupted: threading.Event) -> int:
        """Wait until a process that ends all ends, all have died, or `interrupted` is set; return an exit status.

        The status is that of the process that ends all; else 1 where one died by itself; else 0.
        """
        while not interrupted.wait(0.1):
            for plan, process in self._processes:
                code = process.poll()
                if code is None or plan.name in self._reported:
                    continue
                self._reported.add(plan.name)
                if plan.ends_all:
                    return _status(code)
                self._sink("lapa", f"{plan.name} has died ({describe(code)})")
            if all(process.poll() is not None for _, process in self._processes):
                self._sink("lapa", "nothing is left running")
                return 1
        return 1 if self._reported else 0

    def kill(self, name: str) -> None:
        """Kill one process the hard way: for tests of what the others do then."""
        for plan, process in self._processes:
            if plan.name == name:
                _signal(process, signal.SIGKILL)

    def stop(self) -> None:
        """Interrupt the processes one by one, last started first, and wait for each."""
        for plan, process in reversed(self._processes):
            for number, limit_s in (
                (signal.SIGINT, STOP_LIMIT_S),
                (signal.SIGTERM, 2.0),
                (signal.SIGKILL, 2.0),
            ):
                if process.poll() is not None:
                    break
                _signal(process, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(limit_s)
                if process.poll() is None:
                    self._sink(
                        "lapa", f"{plan.name} did not end within {limit_s:g} s of {number.name}"
                    )
            _signal(process, signal.SIGKILL)  # what it may have left in its group
        end_s = time.monotonic() + 2.0
        for reader in self._readers:
            reader.join(max(0.0, end_s - time.monotonic()))

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._sink(name, line.rstrip("\n"))


def describe(code: int) -> str:
    """Return what a process's return code means, in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _status(code: int) -> int:
    return code if code >= 0 else 128 - code


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def _begin() -> None:
    """Runs in the child: hear SIGINT, and ask Linux for a SIGTERM when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job inherits it ignored
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
