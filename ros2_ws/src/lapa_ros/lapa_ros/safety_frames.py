# SPDX-License-Identifier: Apache-2.0
"""A camera that goes on publishing one and the same picture, with fresh stamps, looks alive. No ROS.

Its stamps pass every check of age; what gives it away is that the arm moves and the picture does not.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import DataError


class FrozenFrames:
    """Compares pictures with what the arm's joints did meanwhile."""

    MOVED_RAD = 0.05
    """A joint that moves this far changes the picture [rad]."""

    def __init__(self) -> None:
        self._digest: int | None = None
        self._moved_rad = 0.0
        self._then_rad: tuple[float, ...] = ()
        self._now_rad: tuple[float, ...] = ()

    def arm(self, measured_rad: Sequence[float]) -> None:
        """Take the measured joints [rad]; may be empty."""
        self._now_rad = tuple(measured_rad)

    def check(self, frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the picture.

        Raises:
            DataError: it is the one from before the arm moved.
        """
        digest, now_rad = zlib.crc32(frame_HWC.tobytes()), self._now_rad
        if digest != self._digest or len(now_rad) != len(self._then_rad):
            self._digest, self._then_rad, self._moved_rad = digest, now_rad, 0.0
            return frame_HWC
        moved_rad = (abs(a - b) for a, b in zip(now_rad, self._then_rad, strict=True))
        self._moved_rad = max(self._moved_rad, *moved_rad, 0.0)
        if self._moved_rad > self.MOVED_RAD:
            raise DataError(
                f"the picture has not changed although the arm moved by {self._moved_rad:.2f} rad: the camera is "
                "frozen; start its driver again"
            )
        return frame_HWC
