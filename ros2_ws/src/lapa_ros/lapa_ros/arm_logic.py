# SPDX-License-Identifier: Apache-2.0
"""What the arm does at each instant: track, hold, stop, move to ready, park. No ROS; the clock is passed in.

The rule behind every branch: on bad or missing data the arm holds the position it measured last, and says why once.
A real arm's target is then a little above it, by what its motors need to carry its weight (`arm_sag.py`).
What must happen in each fault, and the test that injects it: docs/safety.md.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import ActionError
from lapa_core.robot.contract import RobotContract
from lapa_core.robot.controller import ArmController, minimum_jerk
from lapa_core.robot.kinematics import forward_kinematics, smallest_singular_value
from lapa_ros.arm_backends import Backend, Measurement
from lapa_ros.arm_gate import Command, CommandGate, Refused
from lapa_ros.arm_sag import SagGuard
from lapa_ros.arm_sources import SourceArbiter

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

    def over_s(self, now_s: float) -> float:
        """Return for how long the end has been commanded [s]; negative before that."""
        return now_s - self._since_s - self._duration_s


class ArmLogic:
    """The state machine between deltas and a backend; `tick` runs at the contract's command rate, and with each delta.

    MAX_TRACKING_ERROR_RAD, MAX_ASTRAY_S: an arm whose joints stay further than this from their targets for this long
    is blocked, or was moved by something else (or its simulator was reset): the target is anchored anew where the
    arm is.
    ARRIVED_RAD, SETTLE_S: a move has arrived when every joint is this close; it is given up this long after its end.
    MIN_SINGULAR_VALUE: commands start no motion from a posture closer to singular than this: the sleep pose has
    0.006 (wx250s) and 0.009 (vx300s), home 0, the worst reachable corner of the workspace boxes 0.018.
    CONFIRM_S: the second request to cut the torque must come within this time of the first.
    UNSEEN_RAD: an arm that is further than this from where it was seen last has moved meanwhile, or was moved.
    STANDSTILL_S, LATE_S: after a standstill of the node as long as the first, requests that are served within the
    second may have been made meanwhile, by somebody who no longer expects a motion.

    Attributes:
        mode: what the arm does.
        reason: why, as a sentence.
        applied, refused: commands since activation.
        last: the command that was applied last, and `latency_s` from its observation to its application.
        last_refusal: why the last refused command since activation was refused.
    """

    MAX_TRACKING_ERROR_RAD = 0.15
    MAX_ASTRAY_S = 0.4
    ARRIVED_RAD = 0.1
    SETTLE_S = 1.0
    MIN_SINGULAR_VALUE = 0.012
    CONFIRM_S = 10.0
    UNSEEN_RAD = 0.01
    STANDSTILL_S = 1.0
    LATE_S = 0.5

    def __init__(
        self,
        contract: RobotContract,
        backend: Backend,
        gate: CommandGate,
        sources: SourceArbiter,
        say: Say,
        move_speed_rad_s: float,
    ):
        self.contract = contract
        self.controller = ArmController(contract, backend.lead_s)
        self.mode, self.reason = Mode.WAITING, "no joint states yet"
        self.applied = self.refused = 0
        self.last: Command | None = None
        self.latency_s = float("nan")
        self.last_refusal = ""
        self.sent_rad: Array | None = None
        self._backend, self._gate, self._sources, self._say = backend, gate, sources, say
        self._speed_rad_s = move_speed_rad_s
        self._sag = SagGuard(contract.arm)
        self._seen_rad: Array | None = None
        self._move: JointMove | None = None
        self._astray_since_s: float | None = None
        self._blind, self._has_worked = True, False
        self._slewed_rad = self.controller.sample(0.0)
        self._last_applied_s = self._ticked_s = self._sent_s = float("-inf")
        self._deaf_s = float("-inf")  # until then it did not obey, or was asked to hold
        self._asked_for_release_s = self._went_on_s = float("-inf")
        self._said_refusals: set[str] = set()

    @property
    def source(self) -> str:
        """The source that has the arm; "" before the first command."""
        return self._sources.holder

    def measured(self) -> Measurement | None:
        """Return the newest measurement of the backend."""
        return self._backend.measured()

    def trouble(self) -> str:
        """Return why the backend's arm must not be moved, or ""."""
        return self._backend.trouble()

    def poll(self) -> None:
        """Let the backend do what takes several ticks."""
        self._backend.poll()

    def command(self, command: Command, now_s: float) -> bool:
        """Apply one delta and send its first target at once, or refuse it and hold; return whether it was applied.

        The gate bounds how many are applied, and `_slew` how far each target may be from the last one: a delta makes
        the arm begin earlier, not move faster. A refusal sends nothing: there may be any number of them.
        """
        try:
            self._sources.check(command.source, now_s)
            delta = self._gate.check(command, now_s, tracking=self.mode is Mode.TRACKING)
            measured = self._ready_to_track(command, now_s)
            if self._sources.take(command.source, now_s):
                self._hold(measured, Mode.HOLDING, f"{command.source} takes the arm", "info")
                self._said_refusals.clear()
            if self.mode is Mode.HOLDING:
                self._check_start(measured)
            self.controller.apply(delta, now_s)
        except ActionError as error:
            kind = error.kind if isinstance(error, Refused) else "reach"
            self._refuse(kind, str(error))
            return False
        self.applied += 1
        self.last, self._last_applied_s = command, now_s
        self.latency_s = (
            now_s - command.observation_s if command.observation_s is not None else float("nan")
        )
        self._said_refusals &= {"source"}  # a policy goes on trying while a person has the arm
        if self.mode is not Mode.TRACKING:
            self._enter(Mode.TRACKING, f"following {command.source}", "info")
        self.tick(now_s)
        return True

    def tick(self, now_s: float) -> None:
        """Send the joint target of this instant, after the checks that make the arm hold."""
        if self._stands_still(now_s):
            self._went_on_s = now_s
        ticked_s, self._ticked_s = self._ticked_s, now_s
        if self.mode not in (Mode.HOLDING, Mode.TRACKING):
            self._deaf_s = now_s
        measured, trouble = self._backend.measured(), self._backend.trouble()
        if trouble and self.mode is Mode.WAITING:
            self.reason = trouble
        if measured is None:
            return
        if ticked_s - now_s > CommandGate.CLOCK_TOLERANCE_S:
            self._forget_times(measured, now_s, ticked_s - now_s)
        elif self._move is not None:
            # A node that stood still must not jump to where the arm would be by now.
            self._move.resume(ticked_s, now_s, self.contract.max_joint_state_age_s)
        if problem := trouble or self._joints_problem(measured, now_s):
            was_blind, self._blind = self._blind, True
            self._hold_for(problem, latched=bool(trouble) and self._has_worked, measured=measured)
            if trouble:
                self._sag.forget()  # a driver may have been started again, motors limp
            if was_blind:
                return  # an arm that comes back may be anywhere: nothing is sent until it is seen
        elif self._blind:
            self._blind = False
            if self._moved_unseen(measured):
                self._sag.forget()
            self._anchor(measured, gripper=True)
            if self.mode is Mode.WAITING:
                self._has_worked = True
                self._enter(Mode.HOLDING, "joint states arrive; waiting for commands", "info")
        elif self.mode is Mode.TRACKING and now_s - self._last_applied_s > self.contract.watchdog_s:
            self._hold(
                measured, Mode.HOLDING, f"no command for {self.contract.watchdog_s:g} s (watchdog)"
            )
        elif self._move is not None and self._move.over_s(now_s) >= 0.0:
            self._finish_move(measured, now_s)
        elif self._astray(measured, now_s):
            self._give_way(measured)
        joints_rad = (
            self._move.sample(now_s) if self._move is not None else self.controller.sample(now_s)
        )
        self.sent_rad = self._slewed_rad = self._slew(joints_rad, now_s)
        self._sent_s = now_s
        self._backend.send(self.sent_rad, self.controller.gripper)
        if self._backend.is_real:
            self._sag.sent(self.sent_rad, now_s)
        if not self._blind:
            self._seen_rad = measured.joints_rad

    def stop(self) -> str:
        """Hold the measured position, gripper included, until `clear`; return what was done."""
        self._move = None
        measured = self._backend.measured()
        if measured is None:
            self._enter(
                Mode.STOPPED, "stopped by a person; no joint states were ever measured", "warn"
            )
        else:
            self._hold(measured, Mode.STOPPED, "stopped by a person; call ~/clear to go on")
        return self.reason

    def clear(self, now_s: float) -> str:
        """End a latched stop; the arm goes on holding until the next command that is made from now on.

        Raises:
            ActionError: the arm is not stopped, or what stopped it lasts.
        """
        if self.mode is not Mode.STOPPED:
            raise ActionError(
                f"the arm is {self.mode.name.lower()}, not stopped; there is nothing to clear"
            )
        if trouble := self._backend.trouble():
            raise ActionError(f"the arm stays stopped: {trouble}")
        self._deaf_s = now_s
        measured = self._backend.measured()
        if measured is None or self._blind:
            self._enter(Mode.WAITING, "cleared; no joint states yet", "info")
        else:
            self._hold(measured, Mode.HOLDING, "cleared by a person; waiting for commands", "info")
        return self.reason

    def hold(self, now_s: float) -> str:
        """Hold the measured position and anchor the target there; the next good command made from now on is tracked.

        Raises:
            ActionError: the arm is stopped, parked, or waits for joint states.
        """
        measured = self._measured_or_raise()
        if self.mode is Mode.PARKED:
            raise ActionError("the arm is parked; call ~/ready first")
        self._move, self._deaf_s = None, now_s
        self._hold(measured, Mode.HOLDING, "held by request; waiting for commands", "info")
        return self.reason

    def begin(self) -> None:
        """Activate: count from 0, and take the next measurement for where the arm is, which nobody watched.

        The last command stays known, here and at the gate: what was applied before does not apply again.
        """
        self.applied = self.refused = 0
        self.last_refusal = ""
        self._said_refusals.clear()
        self._ticked_s, self._blind = float("-inf"), True
        if self.mode not in (Mode.STOPPED, Mode.PARKED):
            self._enter(Mode.WAITING, "activated; not measured yet", "info")

    def halt(self, reason: str) -> None:
        """Hold the measured position because nobody will drive the arm; a latched stop and a parked arm stay so."""
        self._move = None
        measured = self._backend.measured()
        if measured is not None and self.mode not in (Mode.STOPPED, Mode.PARKED):
            self._hold(measured, Mode.HOLDING, reason, "info")

    def check_fresh(self, now_s: float) -> None:
        """Refuse a request that may have waited while the node stood still: nobody may expect a motion by now.

        Raises:
            ActionError: the node stands still, or has gone on only just now.
        """
        if self._stands_still(now_s) or 0.0 <= now_s - self._went_on_s < self.LATE_S:
            raise ActionError(
                f"the arm node stood still for over {self.STANDSTILL_S:g} s, and this may have been asked "
                "meanwhile; ask again"
            )

    def _stands_still(self, now_s: float) -> bool:
        return self.STANDSTILL_S < now_s - self._ticked_s < float("inf")

    def move_to_ready(self, now_s: float) -> str:
        """Start the move to the contract's ready pose; the mode is HOLDING when it is reached.

        Raises:
            ActionError: the arm is stopped or waits for joint states, or a part of it would meet the table.
        """
        reason = self._start_move(
            Mode.READYING, np.array(self.contract.ready_joints_rad), "ready pose", now_s
        )
        self.controller.gripper = self.contract.ready_gripper
        return reason

    def park(self, now_s: float) -> str:
        """Start the move to the sleep pose, the only one in which torque may be cut.

        Raises:
            ActionError: the arm is stopped or waits for joint states, or a part of it would meet the table.
        """
        return self._start_move(Mode.PARKING, self.contract.arm.sleep_rad, "sleep pose", now_s)

    def release(self, now_s: float) -> str:
        """Cut the torque of an arm that lies in its sleep pose, when asked for the second time; return what was done.

        Raises:
            ActionError: the arm is not parked, or not in the sleep pose, or the backend has no torque to cut.
        """
        measured = self._measured_or_raise()
        off_rad = float(np.abs(measured.joints_rad - self.contract.arm.sleep_rad).max())
        if self.mode is not Mode.PARKED or off_rad > self.ARRIVED_RAD:
            raise ActionError(
                f"without torque the arm falls: it is {self.mode.name.lower()}, {off_rad:.2f} rad from the "
                "sleep pose; call ~/park first"
            )
        if not 0.0 <= now_s - self._asked_for_release_s <= self.CONFIRM_S:
            self._asked_for_release_s = now_s
            return (
                f"the torque is still on: see that the arm lies, and call again within {self.CONFIRM_S:g} s "
                "to cut it"
            )
        self._asked_for_release_s = float("-inf")
        self._backend.cut_torque()
        self._blind = True
        self._enter(Mode.WAITING, "the torque was cut by request", "warn")
        return self.reason

    def move_left_s(self, now_s: float) -> float:
        """Return how long the move to the ready or sleep pose goes on at most [s]; 0 without one."""
        return max(0.0, self.SETTLE_S - self._move.over_s(now_s)) if self._move else 0.0

    def _start_move(self, mode: Mode, joints_rad: Array, name: str, now_s: float) -> str:
        measured = self._measured_or_raise()
        self.controller.table.check_way(measured.joints_rad, joints_rad)
        start_rad = self._sag.hold(measured.joints_rad, measured.stamp_s)
        self._move = JointMove(start_rad, joints_rad, self._speed_rad_s, now_s)
        self._enter(mode, f"moving to the {name}", "info")
        return self.reason

    def _measured_or_raise(self) -> Measurement:
        measured = self._backend.measured()
        if self.mode is Mode.STOPPED:
            raise ActionError("the arm is stopped; call ~/clear first")
        if self.mode is Mode.WAITING or self._blind or measured is None:
            raise ActionError(f"the arm cannot move: {self.reason}")
        return measured

    def _moved_unseen(self, measured: Measurement) -> bool:
        """Return whether the arm is no longer where it was seen last: its last targets then say nothing."""
        if self._seen_rad is None:
            return True
        return float(np.abs(measured.joints_rad - self._seen_rad).max()) > self.UNSEEN_RAD

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

    def _give_way(self, measured: Measurement) -> None:
        """Hold where the arm is; a real one that was in motion has hit something, or somebody, and stays stopped."""
        moving = self.mode in (Mode.TRACKING, Mode.READYING, Mode.PARKING)
        mode = self.mode if self.mode in (Mode.STOPPED, Mode.PARKED) else Mode.HOLDING
        reason = f"the joints do not follow: more than {self.MAX_TRACKING_ERROR_RAD} rad off"
        self._move = None
        self._sag.forget()  # what keeps the joints from their targets may be a hand: none of them stays
        if moving and self._backend.is_real:
            mode, reason = Mode.STOPPED, f"{reason}; free the arm, then call ~/clear"
        self._hold(measured, mode, reason)

    def _finish_move(self, measured: Measurement, now_s: float) -> None:
        """The end of a move was commanded; it is over when the joints are there, which is what parked means."""
        assert self._move is not None
        off_rad = np.abs(measured.joints_rad - self._move.end_rad)
        worst = int(off_rad.argmax())
        if off_rad[worst] > self.ARRIVED_RAD:
            if self._move.over_s(now_s) > self.SETTLE_S:
                self._move = None
                name = self.contract.arm.joint_names[worst]
                reason = f"{name} has not arrived: {off_rad[worst]:.2f} rad off"
                self._hold(measured, Mode.HOLDING, reason)
            return
        self.controller.reset(self._move.end_rad, self.controller.gripper)
        self._move = None
        if self.mode is Mode.PARKING:
            self._enter(Mode.PARKED, "in the sleep pose; call ~/ready to work", "info")
        else:
            self._enter(Mode.HOLDING, "in the ready pose; waiting for commands", "info")

    def _ready_to_track(self, command: Command, now_s: float) -> Measurement:
        if self.mode not in (Mode.HOLDING, Mode.TRACKING) or self._blind:
            raise Refused("mode", f"the arm is {self.mode.name.lower()}: {self.reason}")
        # On its way, or thought about, while the arm was stopped or held: what it was meant for is over.
        seen_s = command.stamp_s if command.observation_s is None else command.observation_s
        if (early_s := self._deaf_s - min(command.stamp_s, seen_s)) > 0.0:
            raise Refused(
                "stale", f"stale command: {early_s:.3f} s from before the arm obeyed again"
            )
        measured = self._backend.measured()
        assert measured is not None, "HOLDING and TRACKING imply a measurement"
        if problem := self._backend.trouble() or self._joints_problem(measured, now_s):
            raise Refused("joints", problem)
        return measured

    def _check_start(self, measured: Measurement) -> None:
        """Refuse to set out from where a small delta would be a large motion: far outside the box, near singular."""
        position_m = forward_kinematics(self.contract.arm, measured.joints_rad)[:3, 3]
        low_m, high_m = self.contract.workspace_min_m, self.contract.workspace_max_m
        outside_m = float(np.linalg.norm(position_m - np.clip(position_m, low_m, high_m)))
        if outside_m > self.contract.max_translation_m:
            raise Refused(
                "start", f"the arm is {outside_m:.2f} m outside its workspace; call ~/ready first"
            )
        smallest = smallest_singular_value(self.contract.arm, measured.joints_rad)
        if smallest < self.MIN_SINGULAR_VALUE:
            raise Refused(
                "start", f"the arm is close to singular ({smallest:.3f}); call ~/ready first"
            )

    def _slew(self, joints_rad: Array, now_s: float) -> Array:
        """Bound the step from the last target, or from where the arm is anchored, by the backend's joint speed.

        The time since then counts, a period of the command rate at most: a node that stood still does not catch up.
        """
        limit_rad_s = self._backend.speed_limit_rad_s
        if np.isinf(limit_rad_s):
            return joints_rad
        since_s = min(max(now_s - self._sent_s, 0.0), 1.0 / self.contract.command_rate_hz)
        most_rad = limit_rad_s * since_s
        return self._slewed_rad + np.clip(joints_rad - self._slewed_rad, -most_rad, most_rad)

    def _joints_problem(self, measured: Measurement, now_s: float) -> str:
        age_s = now_s - measured.stamp_s
        if age_s > self.contract.max_joint_state_age_s:
            return f"joint states are missing for {age_s:.2f} s"
        if age_s < -CommandGate.CLOCK_TOLERANCE_S:
            return f"joint states are stamped {-age_s:.2f} s in the future; are the clocks in step?"
        return ""

    def _refuse(self, kind: str, text: str) -> None:
        """Count it; say it once until a command is applied, another source's once until the arm changes hands.

        A tracking arm holds, unless it was not its own source that was refused.
        """
        self.refused += 1
        self.last_refusal = text
        said, measured = kind in self._said_refusals, self._backend.measured()
        self._said_refusals.add(kind)
        if self.mode is Mode.TRACKING and kind != "source" and measured is not None:
            self._hold(measured, Mode.HOLDING, f"command refused: {text}")
        elif not said:
            self._say("warn", f"command refused: {text}")

    def _forget_times(self, measured: Measurement, now_s: float, step_s: float) -> None:
        """The clock was set back: the watchdog and a move under way are timed by one that no longer counts."""
        self._deaf_s = now_s
        self._gate.forget_times()
        self._sources.forget_times(now_s)
        self._astray_since_s = None
        if self.mode in (Mode.TRACKING, Mode.READYING, Mode.PARKING, Mode.HOLDING):
            self._move = None
            self._hold(measured, Mode.HOLDING, f"the clock was set back by {step_s:.1f} s")

    def _hold_for(self, problem: str, *, latched: bool, measured: Measurement) -> None:
        if latched:
            if self.mode is not Mode.STOPPED or not self.reason.startswith(problem):
                self._move = None
                self._hold(measured, Mode.STOPPED, f"{problem}; mend it, then call ~/clear")
        elif self.mode not in (Mode.STOPPED, Mode.WAITING):
            self._move = None
            self._hold(measured, Mode.WAITING, problem)

    def _hold(self, measured: Measurement, mode: Mode, reason: str, level: str = "warn") -> None:
        self._anchor(measured, gripper=mode is Mode.STOPPED)
        self._enter(mode, reason, level)

    def _anchor(self, measured: Measurement, *, gripper: bool) -> None:
        """Make what holds the measured joints the target, at once: it is where the next step starts.

        A hold keeps the gripper's command, so that a grasp survives it; a stop also ends what the gripper does.
        """
        opening = measured.gripper if gripper else self.controller.gripper
        arm = self.contract.arm
        joints_rad = self._sag.hold(measured.joints_rad, measured.stamp_s)
        joints_rad = np.clip(joints_rad, arm.lower_rad, arm.upper_rad)
        self.controller.reset(joints_rad, opening)
        self._slewed_rad = joints_rad
        self._astray_since_s = None

    def _enter(self, mode: Mode, reason: str, level: str) -> None:
        self.mode, self.reason = mode, reason
        self._asked_for_release_s = float("-inf")  # of the arm as it lay then
        self._say(level, f"{mode.name.lower()}: {reason}")
