# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: one command as a user runs it, and the lines of running nodes."""

from __future__ import annotations

import subprocess
import sys
import time

LIMIT_S = 150.0


def lapa(*arguments, environ):
    """Run one command as a user does; return its output."""
    command = [sys.executable, "-m", "lapa_core", *map(str, arguments)]
    done = subprocess.run(
        command,
        env=environ,
        timeout=LIMIT_S,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, (
        f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    )
    return done.stdout


class Log:
    """Lines of all nodes, in their order, and when each came [s, monotonic]."""

    def __init__(self):
        self.lines: list[str] = []
        self.came_s: list[float] = []

    def __call__(self, name: str, line: str) -> None:
        self.came_s.append(time.monotonic())
        self.lines.append(f"{name}: {line}")

    def wait_for(self, text: str, after: int = 0, limit_s: float = 40.0) -> int:
        end_s = time.monotonic() + limit_s
        while True:
            for index, line in enumerate(self.lines[after:], after):
                if text in line:
                    return index
            assert time.monotonic() < end_s, f"waited {limit_s} s for {text!r} in:\n" + "\n".join(
                self.lines
            )
            time.sleep(0.05)
