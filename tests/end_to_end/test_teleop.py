# SPDX-License-Identifier: Apache-2.0
"""`lapa up teleop` in a terminal: a person types, the simulated arm moves, stops and holds. Processes over real DDS."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

import pytest

from lapa_core.ros_env import isolated, workspace_environment

pytestmark = [pytest.mark.ros, pytest.mark.slow]
LIMIT_S = 90.0
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes standard input the terminal of the session, as a login does, and goes on as the command."""


class Terminal:
    """A pseudo terminal with a command in its foreground, as a person's shell has it."""

    def __init__(self, command: list[str], environ: dict[str, str]):
        self.text = ""
        self._handle, theirs = pty.openpty()
        self.settings = termios.tcgetattr(self._handle)
        self._process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command], env=environ, start_new_session=True,
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        end_s = time.monotonic() + LIMIT_S
        while not (match := re.compile(pattern).search(self.text, after)):
            assert time.monotonic() < end_s, f"waited {LIMIT_S} s for {pattern!r} in:\n{self.text}"
            self._read(0.1)
        return match

    def type(self, text: str) -> None:
        os.write(self._handle, text.encode())

    def hold(self, key: str, seconds: float) -> None:
        """Keep a key down, as the desktop repeats it."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.type(key)
            self._read(0.03)

    def end(self) -> int:
        """Interrupt it as a person does; return the exit status."""
        self.type("\x03")
        end_s = time.monotonic() + LIMIT_S
        while self._process.poll() is None:
            assert time.monotonic() < end_s, f"Ctrl-C did not end it:\n{self.text}"
            self._read(0.05)
        return self._process.returncode

    def settings_now(self) -> list:
        return termios.tcgetattr(self._handle)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._handle)

    def _read(self, limit_s: float) -> None:
        if select.select([self._handle], [], [], limit_s)[0]:
            try:
                self.text += os.read(self._handle, 65536).decode(errors="replace")
            except OSError:  # the other end is closed: the command has ended
                time.sleep(limit_s)


@pytest.fixture
def terminal():
    command = [sys.executable, "-m", "lapa_core", "up", "teleop"]
    terminal = Terminal(command, {**isolated(workspace_environment()), "PYTHONUNBUFFERED": "1"})
    yield terminal
    terminal.close()


def test_a_person_at_a_terminal_drives_stops_and_leaves(terminal):
    terminal.wait_for("keys of /dev/")
    terminal.wait_for("arm.*holding: joint states arrive")
    terminal.wait_for("teleop.*not moving: the switch is open")
    assert not terminal.settings_now()[3] & termios.ECHO
    terminal.hold("q", 1.0)
    moving = terminal.wait_for("arm.*tracking: following operator").end()
    held = terminal.wait_for(r"arm.*holding: no command for 0\.6 s \(watchdog\)", moving).end()
    terminal.type(" ")
    stopped = terminal.wait_for("arm.*stopped: stopped by a person", held).end()
    terminal.hold("q", 0.5)
    terminal.wait_for("teleop.*not moving: the arm does not obey", stopped)
    terminal.type("c")
    terminal.wait_for("arm.*holding: cleared by a person", stopped)
    assert terminal.end() == 0
    assert terminal.settings_now() == terminal.settings
