# SPDX-License-Identifier: Apache-2.0
"""A real-time priority, as `ros2_control` takes one: a busy computer is not to delay an arm."""

from __future__ import annotations

import os
from pathlib import Path


def take_priority(priority: int) -> str:
    """Run all threads of this process, and those they start, under `SCHED_FIFO`; return why not, or "".

    Args:
        priority: 1 to 99; 0 leaves them alone.
    """
    if not priority:
        return ""
    try:
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(priority))
    except ProcessLookupError:  # a thread that has just ended
        return take_priority(priority)
    except OSError as error:
        return (
            f"no real-time priority {priority}: {error.strerror}. A line `USER - rtprio {priority}` in "
            "/etc/security/limits.conf and a new login allow it, in a container `--cap-add SYS_NICE --ulimit "
            f"rtprio={priority}`; without it a busy computer delays the arm. realtime_priority 0 ends this message"
        )
    return ""
