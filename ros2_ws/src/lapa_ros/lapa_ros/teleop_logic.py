# SPDX-License-Identifier: Apache-2.0
"""From an operator's hand to deltas: hold-to-run, one delta per control period, the contract's caps. No ROS.

Nothing goes out unless the switch is down, freshly read, and was up once before; letting go, silence and an arm that
does not obey all end in the same way: no more deltas, and the arm holds by its watchdog.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.errors import ActionError
from lapa_core.robot.contract import RobotContract
from lapa_ros.arm_gate import CommandGate
from lapa_ros.arm_report import ArmReport, arm_blocker
from lapa_ros.teleop_controls import BUTTONS, Controls

Array = NDArray[np.float64]
SWITCHES = frozenset({"hold", "ready"})
"""Buttons that act for as long as they are down; each must have been seen open before."""
VERBS = frozenset(BUTTONS) - SWITCHES - {"gripper", "slow"}
"""Buttons that act once, when they go down, whether or not the switch is."""
SLACK = 0.05
"""A delta may go out by this share of a period before it is due: ticks jitter [1]."""
SWITCH_OPEN = "the switch is open"


@dataclass(frozen=True, kw_only=True)
class ArmSeen:
    """What the arm node said last, as far as an operator's motion depends on it."""

    report: ArmReport
    """Whether it obeys."""
    gripper: float
    """Commanded opening [1]: 0 closed, 1 open."""
    tool_33: Array
    """(3, 3) axes of the end effector in `base_link`."""


class Step(NamedTuple):
    """The motion of one control period, before the caps."""

    translation_m: Array
    """(3,) in `base_link` [m]."""
    rotation_rad: Array
    """(3,) rotation vector in `base_link` [rad]."""
    gripper: float | None
    """Opening [1], or None where only the button changes it."""


class Motion(Protocol):
    """How a held device moves the arm."""

    def begin(self, seen: ArmSeen, now_s: float) -> None:
        """The switch was closed: what moves from here on is relative to this moment.

        Raises:
            ActionError: the device is not usable now.
        """

    def step(self, controls: Controls, seen: ArmSeen, now_s: float) -> Step:
        """Return the motion of this control period.

        Raises:
            ActionError: the device is not usable now.
        """

    def sent(self, delta: EndEffectorDelta) -> None:
        """Take note of what the caps left of it."""


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """How fast a full deflection moves the arm."""

    linear_m_s: float
    """Translation [m/s]."""
    angular_rad_s: float
    """Rotation [rad/s]."""
    slow_factor: float
    """Factor while `slow` is down [1]."""
    in_tool_frame: bool
    """Axes of the end effector instead of those of `base_link`."""


class RateMotion:
    """A deflection is a velocity: gamepad, SpaceMouse, keyboard."""

    def __init__(self, speeds: Speeds, period_s: float):
        self._speeds, self._period_s = speeds, period_s

    def begin(self, seen: ArmSeen, now_s: float) -> None:
        """Nothing to anchor."""

    def step(self, controls: Controls, seen: ArmSeen, now_s: float) -> Step:
        """Return the deflection times speed and period."""
        scale = self._period_s * (self._speeds.slow_factor if "slow" in controls.pressed else 1.0)
        axes_33 = seen.tool_33 if self._speeds.in_tool_frame else np.eye(3)
        motion = np.array(controls.motion)
        return Step(
            axes_33 @ motion[:3] * (self._speeds.linear_m_s * scale),
            axes_33 @ motion[3:] * (self._speeds.angular_rad_s * scale),
            None,
        )

    def sent(self, delta: EndEffectorDelta) -> None:
        """A velocity owes nothing."""


class Teleop:
    """Decides at each instant whether a delta goes out, and which.

    Attributes:
        reason: why nothing goes out, or "".
        num_sent: deltas so far.
        gripper: opening that the next delta commands [1].
    """

    SETTLE_S = 0.3
    """So long after our last delta an arm state may still tell an older gripper opening [s]."""

    def __init__(
        self, contract: RobotContract, motion: Motion, input_timeout_s: float,
        say: Callable[[str, str], None],
    ):  # fmt: skip
        self._contract, self._motion, self._say = contract, motion, say
        self._timeout_s = input_timeout_s
        self._period_s = 1.0 / contract.control_rate_hz
        self._controls: Controls | None = None
        self._received_s = self._sent_s = self._due_s = float("-inf")
        self._open: set[str] = set()  # switches that were seen open since the last silence
        self._engaged = self._readying = self._toggles = False
        self._seen: ArmSeen | None = None
        self.reason = "no input yet"
        self.num_sent = 0
        self.gripper = contract.ready_gripper

    @property
    def engaged(self) -> bool:
        """Whether deltas go out."""
        return self._engaged

    def begin(self) -> None:
        """Activate: a switch that is down must be opened first, as after a silence."""
        self._open.clear()
        self._engaged = self._toggles = self._readying = False

    def end(self) -> bool:
        """Deactivate: return whether a ready move was asked for, which nobody would end."""
        readying = self._readying
        self.begin()
        return readying

    def is_old(self, stamp_s: float, now_s: float) -> bool:
        """Return whether a reading of `stamp_s` does not count at `now_s`: silence, or a clock out of step."""
        return not -CommandGate.CLOCK_TOLERANCE_S <= now_s - stamp_s <= self._timeout_s

    def hear_arm(self, seen: ArmSeen) -> None:
        """Take what the arm node says: one that does not obey must not start by itself when it does again."""
        self._seen = seen
        if not seen.report.obeys:
            self._open.discard("hold")

    def receive(self, controls: Controls, now_s: float) -> list[str]:
        """Take one reading; return the verbs whose buttons went down with it."""
        before = controls.pressed if self._controls is None else self._controls.pressed
        if stale := self._stale(now_s):
            self._open.clear()
        if stale or self.is_old(controls.stamp_s, now_s):
            # A button that is down after a silence was not pressed now; to stop it is never too late.
            before = (controls.pressed - {"stop"}) | (before & {"stop"})
        self._controls, self._received_s = controls, now_s
        self._open |= SWITCHES - controls.pressed
        down = controls.pressed - before
        if "stop" in down:  # at once: an arm that is cleared before the next tick would go on
            self._open.discard("hold")
        self._toggles |= "gripper" in down and "hold" in controls.pressed
        return sorted(down & VERBS)

    def step(self, now_s: float) -> EndEffectorDelta | None:
        """Return the delta that goes out now, or None; call several times per control period."""
        blocker = self._blocker(now_s)
        if blocker:
            self._rest(blocker)
            return None
        assert self._controls is not None
        assert self._seen is not None
        try:
            if not self._engaged:
                self._engage(now_s)
            if now_s < self._due_s - SLACK * self._period_s:
                return None
            delta = self._delta(self._motion.step(self._controls, self._seen, now_s))
        except ActionError as error:
            self._open.discard("hold")
            self._rest(str(error))
            return None
        late = now_s - self._due_s > 0.5 * self._period_s
        self._due_s = (now_s if late else self._due_s) + self._period_s
        self._motion.sent(delta)
        self._sent_s = now_s
        self.num_sent += 1
        return delta

    def ready_verb(self, now_s: float) -> str:
        """Return "ready" when the ready button was pressed, "hold" when it was let go or fell silent, else ""."""
        wanted = (
            not self._stale(now_s)
            and "ready" in self._open
            and self._controls is not None
            and "ready" in self._controls.pressed
        )
        changed, self._readying = wanted is not self._readying, wanted
        return "" if not changed else "ready" if wanted else "hold"

    def _blocker(self, now_s: float) -> str:
        if self._controls is None:
            return "no input yet"
        if self._stale(now_s):
            self._open.clear()
            return "the device is silent"
        if "hold" not in self._controls.pressed:
            return SWITCH_OPEN
        arm = self._seen.report if self._seen is not None else None
        if blocker := arm_blocker(arm, self._contract, now_s, "this teleoperation"):
            self._open.discard("hold")
            return blocker
        return "" if "hold" in self._open else "let go of the switch first"

    def _stale(self, now_s: float) -> bool:
        if self._controls is None:
            return True
        return self.is_old(self._controls.stamp_s, now_s) or self.is_old(self._received_s, now_s)

    def _rest(self, reason: str) -> None:
        """Send nothing, and say why when the reason is another one."""
        self._engaged = self._toggles = False
        if reason != self.reason:
            self.reason = reason
            quiet = reason in ("no input yet", SWITCH_OPEN)
            self._say("info" if quiet else "warn", f"not moving: {reason}")

    def _engage(self, now_s: float) -> None:
        assert self._seen is not None
        self._motion.begin(self._seen, now_s)
        self._engaged = True
        # The gripper stays as the arm has it: nothing is dropped by taking over.
        if not 0.0 <= now_s - self._sent_s <= self.SETTLE_S:
            self.gripper = min(max(self._seen.gripper, 0.0), 1.0)
        since_s = self._sent_s if self._sent_s <= now_s else float("-inf")  # a clock set back
        self._due_s = max(now_s, since_s + self._period_s)
        if self.reason:
            self.reason = ""
            self._say("info", "moving")

    def _delta(self, step: Step) -> EndEffectorDelta:
        if self._toggles:
            self._toggles = False
            self.gripper = 0.0 if self.gripper > 0.5 else 1.0
        if step.gripper is not None:
            self.gripper = min(max(step.gripper, 0.0), 1.0)
        return EndEffectorDelta(
            shortened(step.translation_m, self._contract.max_translation_m),
            shortened(step.rotation_rad, self._contract.max_rotation_rad),
            self.gripper,
        )


def shortened(vector_3: Array, longest: float) -> Array:
    """Return a (3,) vector with its direction and at most a given length."""
    length = math.sqrt(float(vector_3 @ vector_3))
    return vector_3 if length <= longest else vector_3 * (longest / length)
