# SPDX-License-Identifier: Apache-2.0
"""A 3Dconnexion SpaceMouse through pyspacemouse, which is imported when one is asked for. No ROS."""

from __future__ import annotations

from typing import Any

from lapa_core.errors import SetupError
from lapa_ros.teleop_devices import DeviceError, Reading

_MOST_REPORTS = 64
"""Reports read at one poll: more than arrive between two."""


class SpaceMouse:
    """Axes x y z roll pitch yaw in ROS's convention (forward, left, up), then its buttons."""

    def __init__(self, path: str):
        """Read the device of the name `path`, as pyspacemouse lists them; "" is the first that is connected."""
        self._name = path
        self._device: Any = None

    def open(self) -> str:
        """Open it.

        Raises:
            SetupError: pyspacemouse or the system's hidapi is not installed.
            DeviceError: no SpaceMouse is connected, or it may not be read.
        """
        try:
            import pyspacemouse
        except (ImportError, OSError) as error:
            raise SetupError(
                f"the SpaceMouse needs pyspacemouse and the system's hidapi ({error}): "
                "`pip install -e .[spacemouse]` in the clone and `apt install libhidapi-hidraw0`"
            ) from error
        try:
            self._device = pyspacemouse.open(
                device=self._name or None, axis_convention=pyspacemouse.AxisConvention.ROS
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise DeviceError(
                f"no SpaceMouse: {error} Plug it in, and let your user read it (udev rule of pyspacemouse)"
            ) from error
        return f"SpaceMouse {self._device.name}"

    def poll(self, now_s: float) -> Reading:
        """Return the state after all reports so far.

        Raises:
            DeviceError: it was unplugged.
        """
        from pyspacemouse.device import HIDException

        state = None
        try:
            for _ in range(_MOST_REPORTS):
                before_s = state.t if state is not None else None
                state = self._device.read()
                if state.t == before_s:
                    break  # nothing new
        except (HIDException, OSError) as error:
            raise DeviceError(f"the SpaceMouse is gone: {error}") from error
        axes = (state.x, state.y, state.z, state.roll, state.pitch, state.yaw)
        return Reading(tuple(map(float, axes)), tuple(int(button) for button in state.buttons))

    def close(self) -> None:
        """Close it."""
        if self._device is not None:
            self._device.close()
            self._device = None
