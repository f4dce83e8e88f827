# SPDX-License-Identifier: Apache-2.0
"""Which process started a graph's nodes, and whether it still runs: without it nobody is left to end them.

`ros2 launch` that is killed, or ended by SIGTERM, leaves its nodes running ("can result in orphaned processes", it
says). So who starts a node puts its own name into the node's environment, and the node looks. Not by `getppid`: a
prefix or a terminal may stand between the two. No ROS imports.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from lapa_core.errors import SetupError

LAUNCHER_VARIABLE = "LAPA_LAUNCHER"
"""Environment variable of a node: `Process.text` of what started it; absent for one that is started by hand."""

LOOK_S = 0.5
"""Time between two looks at the launcher [s]."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that is told from a later one of the same number."""

    pid: int
    """Its number ..."""
    namespace: str
    """... in this namespace of numbers (a container has its own); empty where the system does not say."""
    started: str
    """When it began, in the system's ticks since boot; empty where the system does not say."""

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the running process of a number in the caller's namespace."""
        return cls(pid=pid, namespace=_namespace(), started=_state_and_start(pid)[1])

    @classmethod
    def this(cls) -> Process:
        """Return the process that calls."""
        return cls.of(os.getpid())

    @classmethod
    def parse(cls, text: str) -> Process:
        """Return what `text` wrote.

        Raises:
            SetupError: it is something else.
        """
        pid, *rest = text.split(",")
        if not pid.isdecimal() or int(pid) < 1 or len(rest) != 2:
            raise SetupError(
                f"{LAUNCHER_VARIABLE} is {text!r}; it must be PID,NAMESPACE,START as `lapa up` and the launch files "
                "write it; unset it to start a node by hand"
            )
        return cls(pid=int(pid), namespace=rest[0], started=rest[1])

    def text(self) -> str:
        """Return it as the value of an environment variable."""
        return f"{self.pid},{self.namespace},{self.started}"

    def is_gone(self) -> bool:
        """Return whether it has ended for certain; one of another namespace is not seen from here, and may run."""
        if self.namespace != _namespace():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's; it runs
            pass
        state, started = _state_and_start(self.pid)
        return state in ("Z", "X") or bool(started and started != self.started)


class LauncherWatch:
    """Looks twice a second whether what started this process still runs."""

    def __init__(self, launcher: Process | None):
        """Watch a process; None is never gone."""
        self.launcher = launcher
        self._looked_s = float("-inf")

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> LauncherWatch:
        """Watch the one that the environment names, and take it out: what this process starts is its own.

        Raises:
            SetupError: the variable is not what a launcher writes.
        """
        text = environ.pop(LAUNCHER_VARIABLE, "")
        return cls(Process.parse(text) if text else None)

    def is_gone(self) -> bool:
        """Return whether the launcher is gone; False between two looks."""
        now_s = time.monotonic()
        if self.launcher is None or now_s - self._looked_s < LOOK_S:
            return False
        self._looked_s = now_s
        return self.launcher.is_gone()


def _state_and_start(pid: int) -> tuple[str, str]:
    """Return a process's state and start (proc(5), fields 3 and 22); ("", "") where that cannot be read."""
    try:
        text = Path("/proc", str(pid), "stat").read_text(errors="replace")
    except OSError:
        return "", ""
    fields = text.rpartition(")")[2].split()  # a name may hold blanks and brackets
    return fields[0], fields[19]


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
