# SPDX-License-Identifier: Apache-2.0
"""Keeps a gripper motor that holds an object from pressing until it overloads. No ROS."""

from __future__ import annotations


class GripperGuard:
    """Commands a gap a little below the measured one once the fingers stop short of where they were sent.

    `linear_position` is a position controller: fingers that meet an object press with the motor's full force, and the
    wx250s gripper motor has no current limit (facts of the robot, 1.11). None of these numbers were tried on a motor.
    """

    STALL_S = 0.4
    """Fingers that have not moved for this long while they were to close have met something [s]."""
    STILL_M = 0.0008
    """Less than this is no movement: 1 % of the wx250s' range is 0.4 mm [m]."""
    SQUEEZE_M = 0.003
    """How far below the measured gap the fingers are then sent: what holds the object [m]."""

    def __init__(self) -> None:
        self._grip_m: float | None = None
        self._seen_m = self._moved_s = float("-inf")

    def gap_m(self, wanted_m: float, measured_m: float, now_s: float) -> float:
        """Return the gap to command [m], given the wanted one and the measured one; called at every tick."""
        if self._grip_m is not None:
            if wanted_m <= self._grip_m:
                return self._grip_m
            self._grip_m = None
        closing = wanted_m < measured_m - self.SQUEEZE_M
        if not closing or abs(measured_m - self._seen_m) > self.STILL_M:
            self._seen_m, self._moved_s = measured_m, now_s
        elif now_s - self._moved_s > self.STALL_S:
            self._grip_m = measured_m - self.SQUEEZE_M
            return self._grip_m
        return wanted_m
