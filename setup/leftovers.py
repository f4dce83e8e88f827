# SPDX-License-Identifier: Apache-2.0
"""Processes that outlive the command that started them, found by a mark in their environment.

Unlike a process group or a parent, the mark also finds a node that became its own session's leader.
"""

import os
import signal
import time
from pathlib import Path

MARK = "LAPA_TEST_RUN"
"""Environment variable whose value names one run."""


def find(run: str) -> dict[int, str]:
    """Return process id and command line of every living process of this run but the caller."""
    wanted = f"{MARK}={run}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                found[int(folder.name)] = command
        except OSError:
            # It has ended meanwhile, or it is another user's.
            continue
    found.pop(os.getpid(), None)
    return found


def end(run: str, grace_s: float = 5.0) -> dict[int, str]:
    """Give the run's processes a moment to end by themselves, then kill the rest.

    Returns:
        Those that had to be killed: process id and command line.
    """
    deadline = time.monotonic() + grace_s
    while (left := find(run)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return left
