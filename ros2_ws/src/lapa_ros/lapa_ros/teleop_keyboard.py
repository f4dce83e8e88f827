# SPDX-License-Identifier: Apache-2.0
"""The keyboard of a terminal as a device: a key that moves is its own hold-to-run switch. No ROS.

A terminal tells presses, not releases: a key counts as down for `key_hold_s` after its last character. A tap is
thereby one control period; a key that is kept down repeats, after the delay that the desktop sets for that.
"""

from __future__ import annotations

import os
import re
import termios
import tty
from collections.abc import Mapping, Sequence

from lapa_core.errors import ContractError
from lapa_core.terminal import TERMINAL_VARIABLE
from lapa_ros.teleop_controls import BUTTONS, MOTIONS
from lapa_ros.teleop_devices import DeviceError, Reading

_NAMES = {" ": "space", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\t": "tab",
          "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left"}  # fmt: skip
_SEQUENCE = re.compile(r"\x1b+\[[0-?]*[@-~]|\x1b+O[A-Z]|\x1b+.|.", re.DOTALL)
"""An arrow or function key, Alt with a key, or a character."""
_BEGUN = re.compile(r"\x1b+(\[[0-?]*|O)?\Z")
_SEQUENCE_S = 0.15
"""The rest of a sequence whose beginning was read comes within this [s]."""
_LINE = re.compile(r"(\S+) (\w+?)([+-]?)")
_MOVING = frozenset({"gripper", "hold"})


def parse_keys(lines: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Return key -> (motion or button, sign of the motion or 0) of lines such as `w x+` and `space stop`.

    Raises:
        ContractError: a line cannot be read, or a key is given twice.
    """
    keys: dict[str, tuple[str, float]] = {}
    for line in lines:
        match = _LINE.fullmatch(line.strip())
        key, name, sign = match.groups() if match else ("", "", "")
        if not (name in MOTIONS if sign else name in BUTTONS):
            raise ContractError(
                f"parameter keys has {line!r}; allowed is a key and a motion with its sign, as `w x+` "
                f"({', '.join(MOTIONS)}), or a button, as `space stop` ({', '.join(BUTTONS)})"
            )
        if key in keys:
            raise ContractError(f"parameter keys has the key {key!r} twice")
        keys[key] = (name, {"+": 1.0, "-": -1.0, "": 0.0}[sign])
    return keys


class Keys:
    """Which keys are down, from the characters that a terminal sent and when."""

    def __init__(self, keys: Mapping[str, tuple[str, float]], key_hold_s: float):
        self._keys, self._hold_s = keys, key_hold_s
        self._pressed_s: dict[str, float] = {}
        self._slow = False
        self._begun, self._begun_s = "", float("-inf")

    def type(self, text: str, now_s: float) -> None:
        """Take characters. A key right after Esc is none, as it might end a sequence, but for the one that stops."""
        if 0.0 <= now_s - self._begun_s <= _SEQUENCE_S:
            text = self._begun + text
        begun = _BEGUN.search(text)
        self._begun, self._begun_s = (begun.group() if begun else ""), now_s
        for sequence in _SEQUENCE.findall(text.removesuffix(self._begun)):
            key = sequence.lstrip("\x1b")
            if len(key) != 1 or self._meaning(key) != "stop":
                key = sequence
            if self._meaning(key) == "slow":
                self._slow = not self._slow  # there is no second finger on a terminal
            elif self._meaning(key):
                self._let_go({"stop": "clear", "clear": "stop"}.get(self._meaning(key), ""), now_s)
                self._pressed_s[_NAMES.get(key, key)] = now_s

    def _let_go(self, name: str, now_s: float) -> None:
        """Take a button as up: a stop after a clear is pressed anew. One that stops is not, before it was seen down."""
        for key, pressed_s in list(self._pressed_s.items()):
            if self._keys[key][0] == name and (name != "stop" or pressed_s < now_s):
                del self._pressed_s[key]

    def _meaning(self, characters: str) -> str:
        """Return the motion or button of a key; "" where it has none."""
        return self._keys.get(_NAMES.get(characters, characters), ("", 0.0))[0]

    def reading(self, now_s: float) -> Reading:
        """Return axes in the order of `MOTIONS`, buttons in that of `BUTTONS`."""
        self._pressed_s = {
            key: pressed_s
            for key, pressed_s in self._pressed_s.items()
            if 0.0 <= now_s - pressed_s <= self._hold_s
        }
        axes = dict.fromkeys(MOTIONS, 0.0)
        down = {"slow"} if self._slow else set()
        for key in self._pressed_s:
            name, sign = self._keys[key]
            if name in axes:
                axes[name] += sign
            else:
                down.add(name)
            if name in axes or name in _MOVING:
                down.add("hold")
        return Reading(tuple(axes.values()), tuple(int(name in down) for name in BUTTONS))


class Keyboard:
    """Reads keys from a terminal, which it sets to hand them over one by one and unseen."""

    def __init__(self, keys: Mapping[str, tuple[str, float]], key_hold_s: float, path: str):
        """Read `path`; "" is the terminal that `lapa up` or `ros2 launch` was started in."""
        self._path = path or os.environ.get(TERMINAL_VARIABLE, "") or "/dev/tty"
        self._keys = Keys(keys, key_hold_s)
        self._help = ", ".join(
            f"{key} {name}{'' if not sign else '+' if sign > 0 else '-'}"
            for key, (name, sign) in keys.items()
        )
        self._handle: int | None = None

    def open(self) -> str:
        """Take the terminal; return the keys.

        Raises:
            DeviceError: there is no terminal, or this process is in its background.
        """
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise DeviceError(
                f"no terminal at {self._path} ({error.strerror}): start the graph in one, or name "
                "another one's path (the command `tty` there prints it) with the parameter path"
            ) from error
        if not os.isatty(handle) or _in_background(handle):
            os.close(handle)
            raise DeviceError(
                f"{self._path} is no terminal that this process may read from: "
                "start the graph in the foreground of one"
            )
        self._handle, self._settings = handle, termios.tcgetattr(handle)
        tty.setcbreak(handle, termios.TCSADRAIN)  # Ctrl-C goes on to end the graph
        termios.tcflush(handle, termios.TCIFLUSH)  # what was typed before is no command
        return f"keys of {self._path}: {self._help}; Ctrl-C ends"

    def poll(self, now_s: float) -> Reading:
        """Return which keys are down.

        Raises:
            DeviceError: the terminal was closed.
        """
        assert self._handle is not None
        try:
            text = os.read(self._handle, 4096)
        except BlockingIOError:
            return self._keys.reading(now_s)
        except OSError as error:
            raise DeviceError(f"the terminal {self._path} is gone: {error.strerror}") from error
        if not text:
            raise DeviceError(f"the terminal {self._path} is gone")
        self._keys.type(text.decode("utf-8", errors="replace"), now_s)
        return self._keys.reading(now_s)

    def close(self) -> None:
        """Give the terminal back as it was."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        try:
            termios.tcsetattr(handle, termios.TCSADRAIN, self._settings)
        except termios.error:  # it was closed: there is nothing to give back
            pass
        finally:
            os.close(handle)


def _in_background(handle: int) -> bool:
    """Return whether this process would be stopped for reading; one in another session is not."""
    try:
        return os.tcgetpgrp(handle) != os.getpgrp()
    except OSError:  # not the controlling terminal, as under `lapa up`
        return False
