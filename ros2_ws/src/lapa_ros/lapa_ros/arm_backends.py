# SPDX-License-Identifier: Apache-2.0
"""Where joint targets go and measured joints come from. A backend decides nothing. No ROS imports here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import ActionError
from lapa_core.robot.contract import RobotContract
from lapa_ros.joint_values import joint_values
from lapa_ros.stamps import Arrival, StampOrder

Array = NDArray[np.float64]
GRIPPER = "gripper"
"""Name of the gripper's entry in joint states and joint commands; its position is the gap of the fingers [m]."""
LEFT_FINGER = "left_finger"
"""Interbotix's joint for one finger, whose position is half the gap [m]; their `gripper` is a motor's angle."""


class Measurement(NamedTuple):
    """The arm as it was measured."""

    joints_rad: Array
    """(6,) joint positions [rad]."""
    gripper: float
    """Opening [1]: 0 closed, 1 open."""
    stamp_s: float
    """When [s]."""


class Backend(Protocol):
    """What an arm node needs of an arm. All calls come from one thread.

    Attributes:
        speed_limit_rad_s: the fastest that a joint's target may move [rad/s]; inf for an arm of the simulator, which
            is what policies were evaluated with.
        lead_s: how far ahead targets are sent: what the arm takes to be where it was sent [s]; 0 for an arm of the
            simulator, as in its environment.
        is_real: whether people can stand beside it: a motion that something blocks is then not tried again before a
            person has cleared the stop.
    """

    speed_limit_rad_s: float
    lead_s: float
    is_real: bool

    def send(self, joints_rad: Array, gripper: float) -> None:
        """Command (6,) joint positions [rad] and a gripper opening [1]."""

    def measured(self) -> Measurement | None:
        """Return the newest measurement, or None before the first."""

    def poll(self) -> None:
        """Do what takes several ticks; called before each."""

    def trouble(self) -> str:
        """Return why the arm must not be moved, or "": it is not set up, a motor has a fault, a driver is silent."""

    def cut_torque(self) -> None:
        """Let the motors go. Only `ArmLogic.release` calls this.

        Raises:
            ActionError: this arm has no torque to cut.
        """


class NoMotors:
    """The part of a backend that only an arm of motors has."""

    is_real = False
    lead_s = 0.0

    def poll(self) -> None:
        """Do nothing: there is nothing to set up or to watch."""

    def trouble(self) -> str:
        """Return that nothing is wrong."""
        return ""

    def cut_torque(self) -> None:
        """Refuse: there is none."""
        raise ActionError("this arm has no motors, and no torque to cut")


class DryRunBackend(NoMotors):
    """An arm that is always where it was sent. For trying the graph without an arm and without a simulator."""

    def __init__(self, contract: RobotContract, clock: Callable[[], float]):
        self._clock = clock
        self.speed_limit_rad_s = float(contract.arm.velocity_rad_s.min())
        self._joints_rad = np.array(contract.ready_joints_rad)
        self._gripper = contract.ready_gripper

    def send(self, joints_rad: Array, gripper: float) -> None:
        """Be there."""
        self._joints_rad, self._gripper = joints_rad.copy(), gripper

    def measured(self) -> Measurement:
        """Return where it was sent, now."""
        return Measurement(self._joints_rad.copy(), self._gripper, self._clock())


class TopicBackend(NoMotors):
    """An arm behind topics: `receive` is fed the joint states, `publish` sends the joint commands.

    Attributes:
        order: counts joint states that came too late, and clocks that were set back.
    """

    def __init__(self, contract: RobotContract, publish: Callable[[list[str], list[float]], None]):
        self._model = contract.arm
        self._publish = publish
        self._names = [*contract.arm.joint_names, GRIPPER]
        self._newest: Measurement | None = None
        self.speed_limit_rad_s = float("inf")
        self.order = StampOrder()

    def send(self, joints_rad: Array, gripper: float) -> None:
        """Publish the six joints [rad] and the finger gap [m] by name."""
        closed_m, open_m = self._model.finger_gap_m
        self._publish(self._names, [*joints_rad.tolist(), closed_m + gripper * (open_m - closed_m)])

    def measured(self) -> Measurement | None:
        """Return the newest joint states that were received."""
        return self._newest

    def receive(self, names: list[str], positions: list[float], stamp_s: float) -> str:
        """Take joint states, found by name, never by position; those older than the newest are refused and counted.

        Returns:
            A sentence to log when the stamps began anew because a clock was set back; else "".

        Raises:
            ActionError: a joint is missing or a position is not finite; the newest measurement stays.
        """
        values = joint_values("joint states", names, positions, self._names)
        arrival = self.order.judge(stamp_s)
        if arrival is not Arrival.LATE:
            closed_m, open_m = self._model.finger_gap_m
            gripper = float(np.clip((values[6] - closed_m) / (open_m - closed_m), 0.0, 1.0))
            self._newest = Measurement(values[:6], gripper, stamp_s)
        return self.order.describe_step() if arrival is Arrival.ANEW else ""
