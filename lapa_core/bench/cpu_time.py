# SPDX-License-Identifier: Apache-2.0
"""CPU time of this process and of live processes that it started, from `/proc`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path


def process_cpu_s(pid: int) -> float:
    """Return user and system time of a process [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_s(others: Iterable[int] = ()) -> float:
    """Return the CPU time of this process and of some others [s]."""
    return time.process_time() + sum(process_cpu_s(pid) for pid in others)
