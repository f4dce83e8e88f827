# SPDX-License-Identifier: Apache-2.0
"""What the devices that a hand holds have in common. No ROS: `teleop_input_node` publishes readings as `Joy`."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from lapa_core.errors import LapaError


class DeviceError(LapaError, OSError):
    """A device is missing, may not be read, or was unplugged."""


class Reading(NamedTuple):
    """What a device says at one instant, in its own order."""

    axes: tuple[float, ...]
    """Deflections [1], -1 to 1."""
    buttons: tuple[int, ...]
    """0 up, 1 down."""


class Device(Protocol):
    """One device; opened, polled without waiting, closed."""

    def open(self) -> str:
        """Open it; return a sentence about it for people.

        Raises:
            DeviceError: it is not there or may not be read.
        """

    def poll(self, now_s: float) -> Reading:
        """Return the present reading; `now_s` is the caller's clock [s].

        Raises:
            DeviceError: it is gone.
        """

    def close(self) -> None:
        """Give it back as it was found."""
