# SPDX-License-Identifier: Apache-2.0
"""A leader arm: while the switch is down, the follower makes its motion, from where each of them began. No ROS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.actions.pose import Pose, apply_delta, delta_between
from lapa_core.errors import ActionError
from lapa_core.robot.kinematics import forward_kinematics
from lapa_core.robot.models import ArmModel
from lapa_ros.arm_backends import GRIPPER, LEFT_FINGER
from lapa_ros.arm_gate import CommandGate
from lapa_ros.joint_values import joint_values
from lapa_ros.stamps import Arrival, StampOrder
from lapa_ros.teleop_controls import Controls
from lapa_ros.teleop_logic import ArmSeen, Step


class LeaderMotion:
    """The leader's way since the switch was closed, minus what was commanded of it.

    Both arms' `base_link` axes are taken as parallel. What the caps hold back of one period comes in the next
    ones; a leader that gets further ahead than `MAX_AHEAD_M` or `MAX_AHEAD_RAD` ends the motion.
    """

    MAX_AHEAD_M = 0.15
    MAX_AHEAD_RAD = 1.0
    PICK_UP = 0.1
    """The gripper follows once the leader's opening was this close to the follower's [1]."""

    def __init__(self, model: ArmModel, scale: float, max_age_s: float):
        """Follow an arm of `model`; its translations times `scale`; joint states older than `max_age_s` are missing."""
        self._model, self._scale, self._max_age_s = model, scale, max_age_s
        self._order = StampOrder()
        self._joints_rad: NDArray[np.float64] | None = None
        self._opening = 0.0
        self._stamp_s = float("-inf")
        self._start_44: Pose = np.eye(4)
        self._done_44: Pose = np.eye(4)
        self._picked_up = False

    def receive(self, names: Sequence[str], positions: Sequence[float], stamp_s: float) -> str:
        """Take joint states, found by name.

        Returns:
            A sentence to log when the stamps began anew because a clock was set back; else "".

        Raises:
            ActionError: a joint is missing or not finite; what was received before stays.
        """
        finger = LEFT_FINGER if LEFT_FINGER in names else GRIPPER
        wanted = [*self._model.joint_names, finger]
        values = joint_values("the leader's joint states", names, positions, wanted)
        arrival = self._order.judge(stamp_s)
        if arrival is not Arrival.LATE:
            closed_m, open_m = self._model.finger_gap_m
            gap_m = values[6] * (2.0 if finger == LEFT_FINGER else 1.0)
            self._opening = float(np.clip((gap_m - closed_m) / (open_m - closed_m), 0.0, 1.0))
            self._joints_rad, self._stamp_s = values[:6], stamp_s
        return self._order.describe_step() if arrival is Arrival.ANEW else ""

    def begin(self, seen: ArmSeen, now_s: float) -> None:
        """Anchor both arms where they are.

        Raises:
            ActionError: no fresh joint states of the leader.
        """
        self._start_44 = self._pose(now_s)
        self._done_44 = self._start_44.copy()
        self._picked_up = False

    def step(self, controls: Controls, seen: ArmSeen, now_s: float) -> Step:
        """Return what is left of the leader's way.

        Raises:
            ActionError: no fresh joint states of the leader, or it is too far ahead.
        """
        wanted_44 = self._pose(now_s)
        way_m = wanted_44[:3, 3] - self._start_44[:3, 3]
        wanted_44[:3, 3] = self._start_44[:3, 3] + self._scale * way_m
        left = delta_between(self._done_44, wanted_44, 0.0)
        ahead_m = float(np.linalg.norm(left.translation_m))
        ahead_rad = float(np.linalg.norm(left.rotation_rad))
        if ahead_m > self.MAX_AHEAD_M or ahead_rad > self.MAX_AHEAD_RAD:
            raise ActionError(
                f"the leader is {ahead_m:.2f} m and {ahead_rad:.1f} rad ahead; allowed are "
                f"{self.MAX_AHEAD_M} m and {self.MAX_AHEAD_RAD} rad; let go and move it slower"
            )
        self._picked_up |= abs(self._opening - seen.gripper) <= self.PICK_UP
        gripper = self._opening if self._picked_up else None
        return Step(left.translation_m, left.rotation_rad, gripper)

    def sent(self, delta: EndEffectorDelta) -> None:
        """Count a delta as done."""
        self._done_44 = apply_delta(self._done_44, delta)

    def _pose(self, now_s: float) -> Pose:
        age_s = now_s - self._stamp_s
        if (
            self._joints_rad is None
            or not -CommandGate.CLOCK_TOLERANCE_S <= age_s <= self._max_age_s
        ):
            never = self._joints_rad is None
            raise ActionError(
                "no joint states of the leader have arrived"
                if never
                else f"the leader's newest joint states are {age_s:.2f} s old; "
                f"allowed are {self._max_age_s:g} s"
            )
        return forward_kinematics(self._model, self._joints_rad)
