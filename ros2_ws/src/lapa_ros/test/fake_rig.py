# SPDX-License-Identifier: Apache-2.0
"""The interbotix backend and the arm's logic on fake motors, without ROS and without waiting."""

import contextlib
from types import SimpleNamespace

import numpy as np
from arm_tools import Commander, make_logic
from lapa_ros.fake_driver.arm import FakeArm
from lapa_ros.interbotix_backend import InterbotixBackend

from lapa_core.errors import ActionError

STEP_S = 0.01


class InProcessLink:
    """A `DriverLink` straight to a `FakeArm`; answers come at the next poll, or never."""

    def __init__(self, arm, model, clock):
        self.arm, self._model, self._clock = arm, model, clock
        self.there, self.hangs, self.other, self.asked = True, False, "", []
        self.group, self.gripper, self.cancelled = [], [], 0

    def others(self):
        return self.other

    def ask(self, service, fields):
        if not self.there:
            raise ActionError(f"the driver's service {service} is not there")
        self.asked.append((service, fields))
        response = SimpleNamespace(**getattr(self, f"_{service}")(**fields))
        return SimpleNamespace(
            done=lambda: not self.hangs, result=lambda: response, cancel=self._cancel
        )

    def _cancel(self):
        self.cancelled += 1

    def command_arm(self, joints_rad):
        self.group.append(joints_rad)
        self.arm.command(self.arm.names("group", "arm"), joints_rad, self._clock())

    def command_gripper(self, gap_m):
        self.gripper.append(gap_m)
        self.arm.command(["gripper"], [gap_m], self._clock())

    def _get_robot_info(self, cmd_type, name):
        names, model = self.arm.names(cmd_type, name), self._model
        shown = ["left_finger" if name == "gripper" else name for name in names]
        return {"mode": self.arm.mode[names[0]], "profile_type": self.arm.profile_type[names[0]],
                "joint_names": shown, "joint_lower_limits": model.lower_rad.tolist(),
                "joint_upper_limits": model.upper_rad.tolist()}  # fmt: skip

    def _get_motor_registers(self, cmd_type, name, reg):
        return {"values": self.arm.read(self.arm.names(cmd_type, name), reg)}

    def _set_motor_registers(self, cmd_type, name, reg, value):
        self.arm.write(self.arm.names(cmd_type, name), reg, value)
        return {}

    def _set_operating_modes(
        self, cmd_type, name, mode, profile_type, profile_velocity, profile_acceleration
    ):
        names = self.arm.names(cmd_type, name)
        self.arm.set_mode(names, mode, profile_type, profile_velocity, profile_acceleration)
        return {}

    def _torque_enable(self, cmd_type, name, enable):
        self.arm.set_torque(self.arm.names(cmd_type, name), enable)
        return {}


class Rig:
    """An arm at its ready pose, set up; joint states at 100 Hz, ticks at 50 Hz, all on a clock that is moved."""

    def __init__(self, contract, clock, *, settle_s=1.0):
        self.contract, self.clock, self.said = contract, clock, []
        self.arm = FakeArm(contract.arm, list(contract.ready_joints_rad))
        self.link = InProcessLink(self.arm, contract.arm, clock)
        say = lambda level, text: self.said.append(text)  # noqa: E731
        self.backend = InterbotixBackend(contract, self.link, say, clock=clock)
        self.logic = make_logic(contract, self.backend, say)
        self.make = Commander(contract, clock)
        self.gripper = 1.0
        self.run(settle_s)

    def run(self, seconds, until=None):
        """Let time pass, or until something is true; return how long it took [s]."""
        begun_s = self.clock()
        for index in range(round(seconds / STEP_S)):
            if until is not None and until():
                break
            self.clock.now_s += STEP_S
            self.arm.step(self.clock(), STEP_S)
            if not self.arm.silent:
                with contextlib.suppress(ActionError):  # as the node, which says so and goes on
                    self.backend.receive(*self.arm.joint_states(), self.clock())
            if index % 2:
                self.backend.poll()
                self.logic.tick(self.clock())
        return self.clock() - begun_s

    def command(self, x=0.01, **changes):
        values = (x, 0.0, 0.0, 0.0, 0.0, 0.0, self.gripper)
        return self.logic.command(self.make(**{"values": values, **changes}), self.clock())

    def steps(self, num, x=0.01, **changes):
        """Give commands at the contract's rate; return which were applied."""
        applied = []
        for _ in range(num):
            applied.append(self.command(x, **changes))
            self.run(0.2)
        return applied

    def joints_rad(self):
        return np.array([self.arm.motors[name].position for name in self.contract.arm.joint_names])
