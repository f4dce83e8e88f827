# SPDX-License-Identifier: Apache-2.0
"""What the arm does at each instant: track, hold, stop, move to ready, park. No ROS; the clock is passed in.

The rule behind every branch: on bad or missing data the arm holds the position it measured last, and says why once.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import ActionError
from lapa_core.robot.contract import RobotContract
from lapa_core.robot.controller import ArmController, minimum_jerk
from lapa_ros.arm_backends import Backend, Measurement
from lapa_ros.arm_gate import Command, CommandGate, Refused

Array = NDArray[np.float64]
Say = Callable[[str, str], None]
"""Takes a level, "info" or "warn", and a sentence."""


class Mode(IntEnum):
    """The MODE constants of lapa_msgs/ArmState."""

    WAITING = 0
    HOLDING = 1
    TRACKING = 2
    STOPPED = 3
    READYING = 4
    PARKING = 5
    PARKED = 6


class JointMove:
    """A minimum-jerk move in joint space whose peak speed stays below a limit."""

    _PEAK = 1.875
    """Peak speed of a minimum-jerk move of length 1 and duration 1."""

    def __init__(self, start_rad: Array, end_rad: Array, speed_rad_s: float, now_s: float):
        self._start_rad, self.end_rad, self._since_s = start_rad.copy(), end_rad.copy(), now_s
        self._duration_s = max(
            0.1, self._PEAK * float(np.abs(end_rad - start_rad).max()) / speed_rad_s
        )

    def sample(self, now_s: float) -> Array:
        """Return the (6,) joints at a time [rad]."""
        share = minimum_jerk((now_s - self._since_s) / self._duration_s)
        return self._start_rad + (self.end_rad - self._start_rad) * share

    def resume(self, driven_s: float, now_s: float, most_s: float) -> None:
        """Go on from where it was driven last, at `driven_s`, when that is longer ago than `most_s` [s]."""
        self._since_s += max(0.0, now_s - max(driven_s, self._since_s) - most_s)

    def left_s(self, now_s: float) -> float:
        """Return how long it goes on [s]; 0 once the end has been commanded."""
        return max(0.0, self._since_s + self._duration_s - now_s)


class ArmLogic:
    """The state machine between deltas and a backend; `tick` runs at the contract's command rate.

    MAX_TRACKING_ERROR_RAD, MAX_ASTRAY_S: an arm whose joints stay further than this from their targets for this long
    was moved by something else (or its simulator was reset): the target is anchored anew where the arm is.

    Attributes:
        mode: what the arm does.
        reason: why, as a sentence.
        applied, refused: commands since activation.
        last: the command that was applied last, and `latency_s` from its observation to its application.
        last_refusal: why the last refused command since activation was refused.
    """

    MAX_TRACKING_ERROR_RAD = 0.15
    MAX_ASTRAY_S = 0.4

    def __init__(
        self,
        contract: RobotContract,
        backend: Backend,
        gate: CommandGate,
        say: Say,
        move_speed_rad_s: float,
    ):
        self.contract = contract
        self.controller = ArmController(contract)
        self.mode, self.reason = Mode.WAITING, "no joint states yet"
        self.applied = self.refused = 0
        self.last: Command | None = None
        self.latency_s = float("nan")
        self.last_refusal = ""
        self.sent_rad: Array | None = None
        self._backend, self._gate, self._say = backend, gate, say
        self._speed_rad_s = move_speed_rad_s
        self._move: JointMove | None = None
        self._astray_since_s: float | None = None
        self._blind = True
        self._last_applied_s = self._ticked_s = float("-inf")
        self._said_refusals: set[str] = set()

    def measured(self) -> Measurement | None:
        """Return the newest measurement of the backend."""
        return self._backend.measured()

    def command(self, command: Command, now_s: float) -> bool:
        """Apply one delta, or refuse it and hold; return whether it was applied."""
        try:
            delta = self._gate.check(command, now_s, tracking=self.mode is Mode.TRACKING)
            self._check_ready_to_track(now_s)
            self.controller.apply(delta, now_s)
        except ActionError as error:
            kind = error.kind if isinstance(error, Refused) else "reach"
            self._refuse(kind, str(error))
            return False
        self._gate.accept(command, now_s)
        self.applied += 1
        self.last, self._last_applied_s = command, now_s
        self.latency_s = (
            now_s - command.observation_s if command.observation_s is not None else float("nan")
        )
        self._said_refusals.clear()
        if self.mode is not Mode.TRACKING:
            self._enter(Mode.TRACKING, f"following {command.source}", "info")
        return True

    def tick(self, now_s: float) -> None:
        """Send the joint target of this instant, after the checks that make the arm hold."""
        ticked_s, self._ticked_s = self._ticked_s, now_s
        measured = self._backend.measured()
        if measured is None:
            return
        if ticked_s - now_s > CommandGate.CLOCK_TOLERANCE_S:
            self._forget_times(measured, ticked_s - now_s)
        elif self._move is not None:
            # A node that stood still must not jump to where the arm would be by now.
            self._move.resume(ticked_s, now_s, self.contract.max_joint_state_age_s)
        if problem := self._joints_problem(measured, now_s):
            was_blind, self._blind = self._blind, True
            if self.mode not in (Mode.WAITING, Mode.STOPPED):
                self._move = None
                self._hold(measured, Mode.WAITING, problem)
            if was_blind:
                return  # an arm that comes back may be anywhere: nothing is sent until it is seen
        elif self.mode is Mode.WAITING:
            self._blind = False
            self._hold(measured, Mode.HOLDING, "joint states arrive; waiting for commands", "info")
        elif self._blind:
            self._blind = False
            self.controller.hold(measured.joints_rad)
        elif self.mode is Mode.TRACKING and now_s - self._last_applied_s > self.contract.watchdog_s:
            self._hold(
                measured, Mode.HOLDING, f"no command for {self.contract.watchdog_s:g} s (watchdog)"
            )
        elif self._move is not None and not self._move.left_s(now_s):
            self._finish_move()
        elif self._astray(measured, now_s):
            self._move = None
            mode = self.mode if self.mode in (Mode.STOPPED, Mode.PARKED) else Mode.HOLDING
            self._hold(
                measured,
                mode,
                f"the joints do not follow: more than {self.MAX_TRACKING_ERROR_RAD} rad off",
            )
        self.sent_rad = (
            self._move.sample(now_s) if self._move is not None else self.controller.sample(now_s)
        )
        self._backend.send(self.sent_rad, self.controller.gripper)

    def stop(self) -> str:
        """Hold the measured position until `clear`; return what was done."""
        self._move = None
        measured = self._backend.measured()
        if measured is None:
            self._enter(
                Mode.STOPPED, "stopped by a person; no joint states were ever measured", "warn"
            )
        else:
            self._hold(measured, Mode.STOPPED, "stopped by a person; call ~/clear to go on")
        return self.reason

    def clear(self) -> str:
        """End a latched stop; the arm goes on holding until the next command.

        Raises:
            ActionError: the arm is not stopped.
        """
        if self.mode is not Mode.STOPPED:
            raise ActionError(
                f"the arm is {self.mode.name.lower()}, not stopped; there is nothing to clear"
            )
        measured = self._backend.measured()
        if measured is None or self._blind:
            self._enter(Mode.WAITING, "cleared; no joint states yet", "info")
        else:
            self._hold(measured, Mode.HOLDING, "cleared by a person; waiting for commands", "info")
        return self.reason

    def hold(self) -> str:
        """Hold the measured position and anchor the target there; the next good command starts tracking.

        Raises:
            ActionError: the arm is stopped, parked, or waits for joint states.
        """
        measured = self._measured_or_raise()
        if self.mode is Mode.PARKED:
            raise ActionError("the arm is parked; call ~/ready first")
        self._move = None
        self._hold(measured, Mode.HOLDING, "held by request; waiting for commands", "info")
        return self.reason

    def begin(self) -> None:
        """Activate: count from 0, and take the next measurement for where the arm is, which nobody watched.

        The last command stays known, here and at the gate: what was applied before does not apply again.
        """
        self.applied = self.refused = 0
        self.last_refusal = ""
        self._said_refusals.clear()
        self._blind = True

    def halt(self, reason: str) -> None:
        """Hold the measured position because nobody will drive the arm; a latched stop and a parked arm stay so."""
        self._move = None
        measured = self._backend.measured()
        if measured is not None and self.mode not in (Mode.STOPPED, Mode.PARKED):
            self._hold(measured, Mode.HOLDING, reason, "info")

    def move_to_ready(self, now_s: float) -> str:
        """Start the move to the contract's ready pose; the mode is HOLDING when it is reached.

        Raises:
            ActionError: the arm is stopped or waits for joint states.
        """
        reason = self._start_move(
            Mode.READYING, np.array(self.contract.ready_joints_rad), "ready pose", now_s
        )
        self.controller.gripper = self.contract.ready_gripper
        return reason

    def park(self, now_s: float) -> str:
        """Start the move to the sleep pose, the only one in which torque may be cut.

        Raises:
            ActionError: the arm is stopped or waits for joint states.
        """
        return self._start_move(Mode.PARKING, self.contract.arm.sleep_rad, "sleep pose", now_s)

    def move_left_s(self, now_s: float) -> float:
        """Return how long the move to the ready or sleep pose goes on [s]; 0 without one."""
        return self._move.left_s(now_s) if self._move is not None else 0.0

    def _start_move(self, mode: Mode, joints_rad: Array, name: str, now_s: float) -> str:
        measured = self._measured_or_raise()
        self._move = JointMove(measured.joints_rad, joints_rad, self._speed_rad_s, now_s)
        self._enter(mode, f"moving to the {name}", "info")
        return self.reason

    def _measured_or_raise(self) -> Measurement:
        measured = self._backend.measured()
        if self.mode is Mode.STOPPED:
            raise ActionError("the arm is stopped; call ~/clear first")
        if self.mode is Mode.WAITING or measured is None:
            raise ActionError(f"the arm cannot move: {self.reason}")
        return measured

    def _astray(self, measured: Measurement, now_s: float) -> bool:
        if (
            self.sent_rad is None
            or np.abs(measured.joints_rad - self.sent_rad).max() < self.MAX_TRACKING_ERROR_RAD
        ):
            self._astray_since_s = None
            return False
        if self._astray_since_s is None:
            self._astray_since_s = now_s
        return now_s - self._astray_since_s > self.MAX_ASTRAY_S

    def _finish_move(self) -> None:
        assert self._move is not None
        self.controller.reset(self._move.end_rad, self.controller.gripper)
        self._move = None
        if self.mode is Mode.PARKING:
            self._enter(Mode.PARKED, "in the sleep pose; call ~/ready to work", "info")
        else:
            self._enter(Mode.HOLDING, "in the ready pose; waiting for commands", "info")

    def _check_ready_to_track(self, now_s: float) -> None:
        if self.mode not in (Mode.HOLDING, Mode.TRACKING):
            raise Refused("mode", f"the arm is {self.mode.name.lower()}: {self.reason}")
        measured = self._backend.measured()
        assert measured is not None, "HOLDING and TRACKING imply a measurement"
        if problem := self._joints_problem(measured, now_s):
            raise Refused("joints", problem)

    def _joints_problem(self, measured: Measurement, now_s: float) -> str:
        age_s = now_s - measured.stamp_s
        if age_s > self.contract.max_joint_state_age_s:
            return f"joint states are missing for {age_s:.2f} s"
        if age_s < -CommandGate.CLOCK_TOLERANCE_S:
            return f"joint states are stamped {-age_s:.2f} s in the future; are the clocks in step?"
        return ""

    def _refuse(self, kind: str, text: str) -> None:
        """Count and say it, once per kind until a command is applied again; a tracking arm holds."""
        self.refused += 1
        self.last_refusal = text
        said, measured = kind in self._said_refusals, self._backend.measured()
        self._said_refusals.add(kind)
        if self.mode is Mode.TRACKING and kind != "source" and measured is not None:
            self._hold(measured, Mode.HOLDING, f"command refused: {text}")
        elif not said:
            self._say("warn", f"command refused: {text}")

    def _forget_times(self, measured: Measurement, step_s: float) -> None:
        """The clock was set back: the watchdog and a move under way are timed by one that no longer counts."""
        self._gate.forget_times()
        self._astray_since_s = None
        if self.mode in (Mode.TRACKING, Mode.READYING, Mode.PARKING, Mode.HOLDING):
            self._move = None
            self._hold(measured, Mode.HOLDING, f"the clock was set back by {step_s:.1f} s")

    def _hold(self, measured: Measurement, mode: Mode, reason: str, level: str = "warn") -> None:
        self.controller.hold(measured.joints_rad)
        self._astray_since_s = None
        self._enter(mode, reason, level)

    def _enter(self, mode: Mode, reason: str, level: str) -> None:
        self.mode, self.reason = mode, reason
        self._say(level, f"{mode.name.lower()}: {reason}")
