# SPDX-License-Identifier: Apache-2.0
"""The target that holds an arm where it was measured, although its motors give way to its weight. No ROS.

A servo without an integral part, as these motors are by default, stays below its target by what carries the weight. To
make the measured joints the target would lower the arm by that much, and with each hold anew.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from lapa_core.robot.kinematics import ee_jacobian
from lapa_core.robot.models import ArmModel

Array = NDArray[np.float64]


class SagGuard:
    """Remembers the last targets, and finds in them what the motors carried.

    What a joint carries is the least that its targets were above it, from `LAG_S` before it was measured until now: of
    an arm at rest the whole sag, of one that is lifted less, for its targets run ahead of it. So a hold is never beyond
    the last target, an arm at rest keeps its target however often it is held, and a motion never goes on. Only what
    lifts counts: what presses down or sideways is let go.

    LAG_S: longer than motors lag behind their targets [s]; KEPT_S: how long targets are remembered [s].
    MOST_RAD: more than this is not the arm's weight [rad].
    LEVER_M: a joint that lifts the end effector by less than this per radian carries no weight worth keeping [m].
    """

    LAG_S = 0.1
    KEPT_S = 1.0
    MOST_RAD = 0.15
    LEVER_M = 0.02

    def __init__(self, model: ArmModel) -> None:
        self._model = model
        self._targets: deque[tuple[float, Array]] = deque()

    def forget(self) -> None:
        """Know nothing: the arm moved while nobody looked, or something blocks it."""
        self._targets.clear()

    def sent(self, target_rad: Array, now_s: float) -> None:
        """Take what was just sent, (6,) [rad]."""
        if self._targets and now_s < self._targets[-1][0]:
            self._targets.clear()
        self._targets.append((now_s, target_rad))
        while len(self._targets) > 1 and self._targets[1][0] <= now_s - self.KEPT_S:
            self._targets.popleft()

    def hold(self, measured_rad: Array, stamp_s: float) -> Array:
        """Return the (6,) target that holds joints where they were measured at a time [rad]."""
        since_s = stamp_s - self.LAG_S
        targets = [target for time_s, target in self._targets if time_s > since_s]
        before = [target for time_s, target in self._targets if time_s <= since_s]
        if not before:
            return measured_rad.copy()
        lever_m = ee_jacobian(self._model, measured_rad)[2]
        upwards = np.sign(lever_m) * (np.abs(lever_m) > self.LEVER_M)
        above_rad = (np.stack([before[-1], *targets]) - measured_rad) * upwards
        carried_rad = above_rad.min(axis=0)
        carried_rad[(carried_rad < 0.0) | (carried_rad > self.MOST_RAD)] = 0.0
        return measured_rad + carried_rad * upwards
