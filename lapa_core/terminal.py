# SPDX-License-Identifier: Apache-2.0
"""The terminal that a command was started in.

A note on it passes; a child of `lapa up` reads its keys although it lives in a session of its own.
"""

from __future__ import annotations

import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import ttyname

TERMINAL_VARIABLE = "LAPA_TERMINAL"
"""Environment variable with the path of the terminal."""


def with_terminal(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that names the terminal of this process, where its input is one."""
    if not sys.stdin.isatty():
        return dict(environ)
    return {**environ, TERMINAL_VARIABLE: ttyname(sys.stdin.fileno())}


@contextmanager
def kept_terminal() -> Iterator[None]:
    """Leave the terminal's settings as they were, whatever a child that was killed has done to them."""
    if not sys.stdin.isatty():
        yield
        return
    settings = termios.tcgetattr(sys.stdin.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, settings)


@contextmanager
def passing_note(text: str) -> Iterator[None]:
    """Show a line on a terminal while something takes its time, and take it away again."""
    if not sys.stderr.isatty():
        yield
        return
    sys.stderr.write(f"{text} ...")
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
