# SPDX-License-Identifier: Apache-2.0
"""An arm of fake motors with the driver's view of it: groups, modes, registers, joint states, faults. No ROS."""

from __future__ import annotations

from lapa_core.errors import ActionError
from lapa_core.robot.models import ArmModel
from lapa_ros.fake_driver.motors import OVERLOAD, RAM, FakeFingers, FakeMotor

GRIPPER = "gripper"
MOTOR_IDS = {
    "waist": 1, "shoulder": 2, "elbow": 4, "forearm_roll": 6, "wrist_angle": 7, "wrist_rotate": 8, GRIPPER: 9,
}  # fmt: skip
"""Of both arms; 3 and 5 are the shadows."""
SINKING = ("shoulder", "elbow", "wrist_angle")
"""Joints that gravity moves."""
SHADOWS = {"shoulder_shadow": "shoulder", "elbow_shadow": "elbow"}
"""Second motor of a joint -> the first, whose writes it hears too; the driver's groups leave it out."""

FAULTS = ("stuck", "overload", "sag", "limp", "object", "dead_bus", "silent", "mend")
"""stuck, sag JOINT; overload MOTOR; limp (no torque); object WIDTH_M; dead_bus; silent (no joint states); mend all."""
SAG_RAD = 0.05
"""What the fault `sag` is: a shoulder that carries 2 Nm at the gain that these motors come with [rad]."""


class FakeArm:
    """What `xs_sdk` knows and does.

    Attributes:
        motors: by name.
        shadows: registers of second motors, by name.
        mode: operating mode by motor; `profile_type` likewise.
        torque_cuts: how often the torque of an arm joint was cut by a request.
        silent: whether joint states are withheld.
        dead_bus: whether motors can neither be read nor written.
    """

    def __init__(self, model: ArmModel, joints_rad: list[float]):
        self._model = model
        self.motors: dict[str, FakeMotor] = {}
        joints = zip(
            model.joint_names, joints_rad, model.lower_rad, model.upper_rad, model.velocity_rad_s, model.sleep_rad,
            strict=True,
        )  # fmt: skip
        for name, position, low, high, speed, sleep in joints:
            rest = float(sleep) if name in SINKING else None
            self.motors[name] = FakeMotor(position, low, high, speed, rest)
        closed_m, open_m = model.finger_gap_m
        self.fingers = FakeFingers(open_m, closed_m - 0.002, open_m + 0.002)
        self.motors[GRIPPER] = self.fingers
        self.shadows = {name: dict(self.motors[first].registers) for name, first in SHADOWS.items()}
        self.mode = dict.fromkeys(self.motors, "position") | {GRIPPER: "pwm"}
        self.profile_type = dict.fromkeys(self.motors, "time")
        self.torque_cuts = 0
        self.silent = self.dead_bus = False

    def names(self, cmd_type: str, name: str) -> list[str]:
        """Return the motors of a group or the one of a joint; [] where there is none, as the driver only logs."""
        groups = {"arm": list(self._model.joint_names), "all": list(self.motors)}
        if cmd_type == "group":
            return groups.get(name, [])
        return [name] if name in self.motors or name in self.shadows else []

    def command(self, names: list[str], values: list[float], now_s: float) -> None:
        """Take goals; a wrong number of them is ignored, as the driver does."""
        if len(names) != len(values) or self.dead_bus:
            return
        for name, value in zip(names, values, strict=True):
            if self.mode[name] in ("position", "linear_position"):
                self.motors[name].command(value, now_s)

    def read(self, names: list[str], register: str) -> list[int]:
        """Return a register of each motor; [] where the bus is dead or the register unknown."""
        if self.dead_bus or any(register not in self._registers(name) for name in names):
            return []
        return [self._registers(name)[register] for name in names]

    def write(self, names: list[str], register: str, value: int) -> None:
        """Write a register of each motor and of its shadow."""
        if self.dead_bus:
            return
        for name in [*names, *self._shadows_of(names)]:
            self._registers(name)[register] = value

    def set_mode(
        self, names: list[str], mode: str, profile_type: str, velocity: int, acceleration: int
    ) -> None:
        """Set operating modes; the torque is cut meanwhile."""
        self.set_torque(names, False)
        for name in names:
            self.mode[name], self.profile_type[name] = mode, profile_type
        self.write(names, "Profile_Velocity", velocity)
        self.write(names, "Profile_Acceleration", acceleration)
        self.set_torque(names, True)

    def set_torque(self, names: list[str], on: bool) -> None:
        """Switch torque on or off."""
        if self.dead_bus:
            return
        self.torque_cuts += not on and any(name != GRIPPER for name in names)
        for name in names:
            if name in self.motors:
                self.motors[name].set_torque(on)
        self.write(names, "Torque_Enable", int(on))

    def reboot(self, names: list[str], *, on: bool, only_failed: bool) -> int:
        """Reboot motors and their shadows, all or those with an error, and return how many; they let go meanwhile.

        A shadow that is named stays without torque, whatever was asked for, as with the driver.
        """
        if self.dead_bus:
            return 0
        count = 0
        for name in names:
            if only_failed and not self._registers(name)["Hardware_Error_Status"]:
                continue
            count += 1
            self.torque_cuts += name != GRIPPER
            if name in self.motors:
                self.motors[name].reboot(on=on)
            for shadow in [name, *self._shadows_of([name])]:
                if shadow in self.shadows:
                    held = int(on and shadow != name)
                    self.shadows[shadow] |= {**RAM, "Torque_Enable": held}
        return count

    def step(self, now_s: float, dt_s: float) -> None:
        """Move every motor for `dt_s` up to `now_s`; on a dead bus what they do is not seen: they stand still."""
        if not self.dead_bus:
            for motor in self.motors.values():
                motor.step(now_s, dt_s)

    def joint_states(self) -> tuple[list[str], list[float]]:
        """Return names and positions in the driver's order: joints [rad], gripper motor [rad], fingers [m]."""
        half_m = self.fingers.position / 2.0
        joints_rad = [self.motors[name].position for name in self._model.joint_names]
        names = [*self._model.joint_names, GRIPPER, "left_finger", "right_finger"]
        closed_m, open_m = self._model.finger_gap_m
        share = (self.fingers.position - closed_m) / (open_m - closed_m)
        return names, [*joints_rad, -0.4 + 1.7 * share, half_m, -half_m]

    def inject(self, fault: str) -> None:
        """Begin a fault, one of `FAULTS` with its argument; "mend" ends all.

        Raises:
            ActionError: there is no such fault or joint.
        """
        kind, _, argument = fault.partition(" ")
        if kind == "overload" and argument in self.shadows:
            self.shadows[argument] |= {"Hardware_Error_Status": OVERLOAD, "Torque_Enable": 0}
        elif kind in ("stuck", "overload", "sag") and argument in self.motors:
            motor = self.motors[argument]
            if kind == "stuck":
                motor.stuck = True
            elif kind == "sag":
                motor.sag = SAG_RAD
            else:
                motor.fail(OVERLOAD)
                for shadow in self._shadows_of([argument]):
                    self.shadows[shadow] |= {"Hardware_Error_Status": OVERLOAD, "Torque_Enable": 0}
        elif kind == "limp":
            for motor in self.motors.values():
                motor.set_torque(False)
            self.write(list(self.motors), "Torque_Enable", 0)
        elif kind == "object":
            self.fingers.object_m = float(argument)
        elif kind in ("dead_bus", "silent"):
            setattr(self, kind, True)
        elif kind == "mend":
            self._mend()
        else:
            raise ActionError(
                f"fault {fault!r} is unknown; allowed are {FAULTS}, joints {list(self.motors)}"
            )

    def _registers(self, name: str) -> dict[str, int]:
        return self.shadows[name] if name in self.shadows else self.motors[name].registers

    def _shadows_of(self, names: list[str]) -> list[str]:
        return [shadow for shadow, first in SHADOWS.items() if first in names]

    def _mend(self) -> None:
        self.silent = self.dead_bus = False
        for motor in self.motors.values():
            motor.stuck, motor.sag = False, 0.0
            motor.registers["Hardware_Error_Status"] = 0
            if not motor.registers["Torque_Enable"]:
                motor.set_torque(True)
        for shadow in self.shadows.values():
            shadow |= {"Hardware_Error_Status": 0, "Torque_Enable": 1}
