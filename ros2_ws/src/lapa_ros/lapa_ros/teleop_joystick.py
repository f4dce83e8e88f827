# SPDX-License-Identifier: Apache-2.0
"""A gamepad or joystick of Linux (`/dev/input/js0`), in the axes and signs of ROS's `joy_linux`. No ROS.

The kernel's joystick interface: on opening, the present state of every axis and button; then one event of 8 bytes per
change (time, value, kind, number), linux/joystick.h.
"""

from __future__ import annotations

import os
import struct

from lapa_ros.teleop_devices import DeviceError, Reading

EVENT = struct.Struct("<IhBB")
"""Time [ms], value, kind, number of the axis or button."""
BUTTON, AXIS, INITIAL = 0x01, 0x02, 0x80
_FULL = 32767.0


class Joystick:
    """Axes with left and up positive, as `joy_linux` publishes them."""

    def __init__(self, path: str):
        """Read `path`; "" is the first joystick."""
        self._path = path or "/dev/input/js0"
        self._handle: int | None = None

    def open(self) -> str:
        """Open it.

        Raises:
            DeviceError: it is not there or may not be read.
        """
        try:
            self._handle = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise DeviceError(
                f"no joystick at {self._path} ({error.strerror}): plug it in, be a member of the group "
                "`input`, or name another one with the parameter path"
            ) from error
        self._axes: dict[int, float] = {}
        self._buttons: dict[int, int] = {}
        self._shown: dict[int, int] = {}
        self._rest = b""
        return f"joystick {self._path}"

    def poll(self, now_s: float) -> Reading:
        """Return the state after all events so far; a button that has changed and changed back shows that once.

        Without that, a node that stood still would not see a short press of the stop button.

        Raises:
            DeviceError: it was unplugged.
        """
        assert self._handle is not None
        try:
            data = os.read(self._handle, 64 * EVENT.size)
        except BlockingIOError:
            data = None
        except OSError as error:
            raise DeviceError(f"the joystick {self._path} is gone: {error.strerror}") from error
        if data == b"":
            raise DeviceError(f"the joystick {self._path} is gone")
        self._rest += data or b""
        whole = len(self._rest) // EVENT.size * EVENT.size
        changed = set[int]()
        for _, value, kind, number in EVENT.iter_unpack(self._rest[:whole]):
            if kind & ~INITIAL == AXIS:
                self._axes[number] = max(-1.0, -value / _FULL)
            elif kind & ~INITIAL == BUTTON:
                if self._buttons.get(number, 0) != int(value != 0):
                    changed.add(number)
                self._buttons[number] = int(value != 0)
        self._rest = self._rest[whole:]
        self._shown = self._buttons | {number: 1 - self._shown.get(number, 0) for number in changed}
        return Reading(
            tuple(self._axes.get(i, 0.0) for i in range(max(self._axes, default=-1) + 1)),
            tuple(self._shown.get(i, 0) for i in range(max(self._shown, default=-1) + 1)),
        )

    def close(self) -> None:
        """Close it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
