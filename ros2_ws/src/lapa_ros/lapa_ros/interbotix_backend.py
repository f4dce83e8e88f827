# SPDX-License-Identifier: Apache-2.0
"""The arm behind Interbotix's X-series driver (`xs_sdk`): set up, streamed to, and watched. No ROS imports here.

Every request is asynchronous, and one thread does all. Nothing is sent before the set-up is complete, and a driver
that was silent is set up anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from lapa_core.errors import ActionError
from lapa_core.robot.contract import RobotContract
from lapa_ros.arm_backends import GRIPPER, LEFT_FINGER, Array, TopicBackend
from lapa_ros.interbotix_gripper import GripperGuard
from lapa_ros.joint_values import joint_values

SHADOWS = ("shoulder_shadow", "elbow_shadow")
"""The second motors of two joints; the driver's groups leave them out."""

_DURATION, _ACCELERATION = "Profile_Velocity", "Profile_Acceleration"
"""Registers of a time profile: how long a motion takes, and its acceleration [ms]."""
_ERROR_BITS = {
    0: "input voltage",
    2: "overheating",
    3: "encoder",
    4: "electrical shock",
    5: "overload",
}


class Answer(Protocol):
    """What becomes of a request; an rclpy Future."""

    def done(self) -> bool:
        """Return whether it was answered."""

    def result(self) -> Any:
        """Return the response."""

    def cancel(self) -> None:
        """Give it up."""


class DriverLink(Protocol):
    """The driver's services and topics."""

    def ask(self, service: str, fields: dict[str, Any]) -> Answer:
        """Send a request.

        Raises:
            ActionError: the service is not there.
        """

    def others(self) -> str:
        """Return who else commands the arm or publishes its joint states, or ""."""

    def command_arm(self, joints_rad: list[float]) -> None:
        """Publish six joint positions [rad]."""

    def command_gripper(self, gap_m: float) -> None:
        """Publish the gap of the fingers [m]."""


class Request(NamedTuple):
    """One service call."""

    service: str
    """Its name, relative to the robot."""
    fields: dict[str, Any]
    """Of the request."""


class SilentBus(ActionError):
    """The driver could not read its motors; now and then that happens once."""


Routine = Generator[Request, Any, None]


class InterbotixBackend(TopicBackend):
    """Streams joint targets to the driver and knows whether the arm may be moved.

    `poll` runs one routine at a time, a generator that yields requests and gets their answers: the set-up until it
    succeeds, then every `POLL_S` a look at the motors.
    """

    is_real = True
    POLL_S = 1.0
    RETRY_S = 1.0
    ANSWER_S = 2.0
    """A driver that takes longer than this for an answer hangs [s]."""
    SILENT_S = 0.5
    """A driver whose joint states were away for longer than this may have been restarted [s]."""
    JUMP_RAD = 0.2
    """Joint states may differ from the last good ones by this plus what 1.5 times the speed limit explains [rad]."""
    LIMITS_RAD = 0.05
    """The driver's joint limits may differ from ours by this: another model's differ by 0.1 and more [rad]."""
    GRIPPER_PROFILE_MS: ClassVar = {_DURATION: 300, _ACCELERATION: 100}
    """Of the fingers [ms]."""

    def __init__(
        self,
        contract: RobotContract,
        link: DriverLink,
        say: Callable[[str, str], None],
        *,
        has_motors: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Talk through `link`.

        Args:
            contract: the robot's.
            link: the driver.
            say: takes a level and a sentence.
            has_motors: False for Interbotix's `xs_sdk_sim`, which has no motors to read faults and torque from.
            clock: counts seconds; never set back.
        """
        super().__init__(contract, self._command)
        self.speed_limit_rad_s = float(contract.arm.velocity_rad_s.min())
        # A profile a little longer than the period of the targets, so that one motion blends into the next: the
        # motors are where they were sent a period later.
        self.lead_s = 1.0 / contract.command_rate_hz
        self._profile_ms = {
            _DURATION: round(1250 / contract.command_rate_hz),
            _ACCELERATION: round(500 / contract.command_rate_hz),
        }
        self._link, self._say, self._clock, self._has_motors = link, say, clock, has_motors
        self._guard = GripperGuard()
        self._gap_m = self._sent_gap_m = float("nan")
        self._motors: list[str] = []
        self._trouble = "not set up yet"
        self._is_set_up = False
        self._routine: Routine | None = None
        self._pending: Answer | None = None
        self._asked, self._asked_s = "", 0.0
        self._began_s = float("-inf")
        self._next_s = self._heard_s = self._stamp_s = float("-inf")
        self._misses = 0

    def trouble(self) -> str:
        """Return why the arm must not be moved, or ""."""
        return self._trouble

    def cut_torque(self) -> None:
        """Let all motors go; the arm is not moved again before somebody has switched them on."""
        self._link.ask("torque_enable", {"cmd_type": "group", "name": "all", "enable": False})
        self._fail("the torque was cut by request; `torque_enable` of the driver switches it on")

    def receive(self, names: list[str], positions: list[float], stamp_s: float) -> str:
        """Take the driver's joint states; the gap is twice the left finger's position.

        Raises:
            ActionError: as `TopicBackend.receive`, and when the joints jumped: two arms publish, or a bus reads wrong.
            What is refused counts as silence.
        """
        joint_names = self._model.joint_names
        *joints, finger_m = joint_values(
            "joint states", names, positions, [*joint_names, LEFT_FINGER]
        )
        now_s = self._clock()
        if now_s - self._heard_s > self.SILENT_S and np.isfinite(self._heard_s):
            self._fail_silent()  # here too: nobody polls while the arm node is inactive
        self._check_jump(np.array(joints), stamp_s)
        gap_m = 2.0 * finger_m
        said = super().receive([*joint_names, GRIPPER], [*joints, gap_m], stamp_s)
        self._gap_m, self._heard_s = gap_m, now_s
        return said

    def poll(self) -> None:
        """Go on with what is asked of the driver; called before every tick."""
        now_s = self._clock()
        if self._is_set_up and now_s - self._heard_s > self.SILENT_S:
            self._fail_silent()
        elif self._pending is not None and self._pending.done():
            self._advance(self._pending.result())
        elif self._pending is not None and now_s - self._asked_s > self.ANSWER_S:
            self._fail(f"the driver does not answer {self._asked} within {self.ANSWER_S:g} s")
        elif self._pending is None and now_s >= self._next_s:
            self._routine = self._watch() if self._is_set_up else self._set_up()
            self._began_s = now_s
            self._advance(None)

    def _set_up(self) -> Routine:
        """Make sure that this is the arm of the contract, in the mode that targets are streamed in."""
        arm = yield self._info("group", "arm")
        self._check_arm(arm)
        everything = yield self._info("group", "all")
        # The driver names the gripper's motor after the finger that it moves.
        self._motors = [GRIPPER if name == LEFT_FINGER else name for name in everything.joint_names]
        if not np.isfinite(self._gap_m):
            raise ActionError("no joint states with fingers come from the driver")
        yield from self._look_at_motors()
        yield from self._write_profile("group", "arm", self._profile_ms)
        for shadow in SHADOWS if self._has_motors else ():
            yield from self._write_profile("single", shadow, self._profile_ms)
        gripper = yield self._info("single", GRIPPER)
        profile_ms = self.GRIPPER_PROFILE_MS
        if (gripper.mode, gripper.profile_type) != ("linear_position", "time"):
            yield Request("set_operating_modes", {
                "cmd_type": "single", "name": GRIPPER, "mode": "linear_position", "profile_type": "time",
                "profile_velocity": profile_ms[_DURATION], "profile_acceleration": profile_ms[_ACCELERATION],
            })  # fmt: skip
        # Also where the driver says that it is so already: a motor that was rebooted has forgotten it.
        yield from self._write_profile("single", GRIPPER, profile_ms)
        self._sent_gap_m = float("nan")

    def _write_profile(self, cmd_type: str, name: str, profile_ms: dict[str, int]) -> Routine:
        for register, value in profile_ms.items():
            target = {"cmd_type": cmd_type, "name": name, "reg": register}
            yield Request("set_motor_registers", {**target, "value": value})
            written = list((yield Request("get_motor_registers", target)).values)
            if set(written) != {value}:
                raise ActionError(f"{register} of {name} is {written}; {value} ms was written")

    def _watch(self) -> Routine:
        """Look at the motors; one that was rebooted has forgotten its profile, and moves as fast as it can."""
        yield from self._look_at_motors()
        if not self._has_motors:
            return
        duration_ms = yield from self._read_all(_DURATION)
        for name, value in duration_ms.items():
            profile_ms = self.GRIPPER_PROFILE_MS if name == GRIPPER else self._profile_ms
            if value != profile_ms[_DURATION]:
                raise ActionError(
                    f"{_DURATION} of {name} is no longer {profile_ms[_DURATION]} ms but {value}: it was rebooted, or "
                    "somebody else set it"
                )

    def _look_at_motors(self) -> Routine:
        """Read what the motors say of themselves, and who else is there."""
        if other := self._link.others():
            raise ActionError(other)
        if not self._has_motors:
            return
        torque = yield from self._read_all("Torque_Enable")
        errors = yield from self._read_all("Hardware_Error_Status")
        # Before the torque: a motor with an error has none, and gets none before it is rebooted.
        if faults := [
            f"{name}: {describe_error(value)}" for name, value in errors.items() if value
        ]:
            raise ActionError(
                f"{', '.join(faults)}; support the arm, then reboot the motor: the driver's `reboot_motors`"
            )
        if limp := [name for name, value in torque.items() if not value]:
            raise ActionError(
                f"no torque on {', '.join(limp)}; support the arm, then switch it on: the driver's `torque_enable`"
            )

    def _read_all(self, register: str) -> Generator[Request, Any, dict[str, int]]:
        """Read it of every motor; the driver's groups leave the shadows out."""
        values = yield from self._read(register, "group", "all", self._motors)
        for shadow in SHADOWS:
            values |= yield from self._read(register, "single", shadow, [shadow])
        return values

    def _read(
        self, register: str, cmd_type: str, name: str, motors: list[str]
    ) -> Generator[Request, Any, dict[str, int]]:
        fields = {"cmd_type": cmd_type, "name": name, "reg": register}
        values = list((yield Request("get_motor_registers", fields)).values)
        if len(values) != len(motors):
            raise SilentBus(f"the driver cannot read {register} of its motors: power, cable?")
        return dict(zip(motors, values, strict=True))

    def _info(self, cmd_type: str, name: str) -> Request:
        return Request("get_robot_info", {"cmd_type": cmd_type, "name": name})

    def _check_arm(self, info: Any) -> None:
        """Refuse another model, and a mode whose change would cut the torque."""
        model = self._model
        if tuple(info.joint_names) != model.joint_names:
            raise ActionError(
                f"the driver's arm has joints {list(info.joint_names)}, {model.name} {model.joint_names}"
            )
        limits = (info.joint_lower_limits, info.joint_upper_limits)
        if any(len(side) != len(model.joint_names) for side in limits):
            raise ActionError(
                "the driver knows no joint limits; start it with a robot_description, as xsarm_control does"
            )
        off_rad = np.abs(np.array(limits) - [model.lower_rad, model.upper_rad]).max()
        if not off_rad < self.LIMITS_RAD:
            raise ActionError(
                f"the driver's joint limits are {off_rad:.2f} rad from {model.name}'s; is it another robot_model?"
            )
        if (info.mode, info.profile_type) != ("position", "time"):
            raise ActionError(
                f"the driver runs the arm in {info.mode!r} with profile {info.profile_type!r}; needed is 'position' "
                "with 'time' (modes.yaml). It is not changed here: the driver cuts the torque to do it"
            )

    def _check_jump(self, joints_rad: Array, stamp_s: float) -> None:
        """Refuse what no motion explains since the last message, refused ones too: nobody is to wait for belief.

        A driver that is not set up is believed: the arm is sent nothing then, and is stopped if it was in use.
        """
        newest = self.measured()
        since_s, self._stamp_s = abs(stamp_s - self._stamp_s), stamp_s
        if newest is None or not self._is_set_up:
            return
        jump_rad = np.abs(joints_rad - newest.joints_rad).max()
        allowed_rad = self.JUMP_RAD + 1.5 * self.speed_limit_rad_s * since_s
        if jump_rad > allowed_rad:
            raise ActionError(
                f"a joint jumped by {jump_rad:.2f} rad; does another arm publish too?"
            )

    def _command(self, _: list[str], positions: list[float]) -> None:
        """Stream the arm; the gripper is sent only what is new, to leave the bus to the arm."""
        self._link.command_arm(positions[:6])
        gap_m = self._guard.gap_m(positions[6], self._gap_m, self._clock())
        if not abs(gap_m - self._sent_gap_m) < 1e-4:  # also NaN
            self._link.command_gripper(gap_m)
            self._sent_gap_m = gap_m

    def _advance(self, answer: Any) -> None:
        assert self._routine is not None
        try:
            request = self._routine.send(answer)
            self._pending = self._link.ask(request.service, request.fields)
        except StopIteration:
            self._finish()
        except SilentBus as error:
            self._misses += 1
            if self._is_set_up and self._misses == 1:
                self._pending, self._next_s = None, self._clock()
            else:
                self._fail(str(error))
        except ActionError as error:
            self._fail(str(error))
        else:
            self._asked, self._asked_s = request.service, self._clock()

    def _finish(self) -> None:
        if not self._is_set_up:
            self._say(
                "info", f"the driver is set up: {len(self._motors)} motors, {self._profile_ms} [ms]"
            )
        self._is_set_up, self._trouble, self._misses = True, "", 0
        self._pending, self._next_s = None, self._began_s + self.POLL_S

    def _fail_silent(self) -> None:
        self._fail(f"the driver was silent for {self.SILENT_S:g} s")

    def _fail(self, text: str) -> None:
        if text != self._trouble:
            self._say("warn", f"driver: {text}")
        self._is_set_up, self._trouble = False, text
        if self._pending is not None:
            self._pending.cancel()
        self._pending, self._next_s = None, self._clock() + self.RETRY_S


def describe_error(status: int) -> str:
    """Return what the bits of `Hardware_Error_Status` mean, in words."""
    words = [word for bit, word in _ERROR_BITS.items() if status >> bit & 1]
    return " and ".join(words) or f"error status {status}"
