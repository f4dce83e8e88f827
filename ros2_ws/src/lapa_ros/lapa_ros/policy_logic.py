# SPDX-License-Identifier: Apache-2.0
"""When a policy may act, and the thread in which it thinks. No ROS; the clock is passed in.

The policy node's callbacks only put frames in a mailbox and flags here; decoding and inference happen in
`PolicyWorker`'s thread, so that a slow model never delays a callback.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lapa_core.errors import LapaError
from lapa_core.policy import PolicyStep
from lapa_core.robot.contract import RobotContract
from lapa_ros.mailbox import Mailbox

Say = Callable[[str, str], None]

ARM_SILENCE_S = 0.5
"""Arm states older than this count as a dead arm node [s]."""

CLOCK_TOLERANCE_S = 0.05
"""How far in the future a frame's stamp may lie, as at the arm's gate [s]."""


class Actor(Protocol):
    """What thinks: `lapa_core.policy.Policy`, or a stand-in that a test writes."""

    def act(self, frame_HWC: Any, instruction: str) -> PolicyStep:
        """Decide on one delta for one RGB frame."""


@dataclass(frozen=True, kw_only=True)
class ArmReport:
    """What the arm node said last."""

    received_s: float
    """When [s]."""
    obeys: bool
    """Whether it would apply a good command now."""
    reason: str
    """Its own sentence."""
    contract_hash: str
    """The contract it enforces."""


class Readiness:
    """Why the policy does not act at present; "" when it may. Callbacks write, the worker reads."""

    def __init__(self, contract: RobotContract):
        self._contract = contract
        self.max_age_s = contract.max_observation_age_s
        self.instruction = ""
        self.arm: ArmReport | None = None

    def blocker(self, now_s: float, newest_frame_s: float | None) -> str:
        """Return the first reason not to act, or ""."""
        if not self.instruction:
            return "no instruction"
        if newest_frame_s is None:
            return "no camera frame has ever arrived"
        if (age_s := now_s - newest_frame_s) > self.max_age_s:
            return f"the camera is stale: the newest frame is {_rounded(age_s)} old"
        if age_s < -CLOCK_TOLERANCE_S:
            return f"the newest frame is stamped {_rounded(-age_s)} in the future; are the clocks in step?"
        if self.arm is None:
            return "no arm state has ever arrived"
        if now_s - self.arm.received_s > ARM_SILENCE_S:
            return "the arm node is silent"
        if self.arm.contract_hash != self._contract.hash:
            return f"the arm enforces contract {self.arm.contract_hash[:12]}, this policy {self._contract.hash[:12]}"
        return "" if self.arm.obeys else f"the arm does not obey: {self.arm.reason}"


def _rounded(age_s: float) -> str:
    """Return an age in words that change seldom, so that a reason is said once and not at every look."""
    return "under 1 s" if age_s < 1 else "under 10 s" if age_s < 10 else "more than 10 s"


@dataclass(frozen=True, kw_only=True)
class Thought:
    """One decision with its times."""

    step: PolicyStep
    """The delta and its bins."""
    observation_s: float
    """Stamp of the frame behind it [s]."""
    inference_s: float
    """How long decoding and inference took [s]."""


class PolicyWorker:
    """Takes due frames, asks the policy, hands thoughts to `emit`; says once why it does not act.

    Attributes:
        num_steps: thoughts emitted since the start.
        waiting_for: why it does not act, or "".
    """

    GRACE_S = 5.0
    """Nodes start in any order: for so long after the start a missing peer is no reason to warn [s]."""
    POLL_S = 0.1
    """How often the reasons not to act are looked at when no frame comes [s]."""

    def __init__(
        self, *, policy: Actor, decode: Callable[[Any], Any], mailbox: Mailbox[Any], readiness: Readiness,
        emit: Callable[[Thought], None], clock: Callable[[], float], say: Say, period_s: float,
        on_crash: Callable[[], None],
    ):  # fmt: skip
        self._policy, self._decode, self._mailbox, self._readiness = (
            policy,
            decode,
            mailbox,
            readiness,
        )
        self._emit, self._clock, self._say, self._period_s = emit, clock, say, period_s
        self._on_crash = on_crash
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)
        self._started_s = clock()
        self.num_steps = 0
        self.waiting_for = "not started"
        self.last: Thought | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread, after the inference under way; return whether it ended in time."""
        self._stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.turn()
        except (
            Exception
        ):  # the thread's boundary: without this it would die unseen, and the node look alive
            self._say("error", f"the policy crashed:\n{traceback.format_exc()}")
            self._on_crash()

    def turn(self) -> None:
        """Wait for a due frame, at most `POLL_S`, and act on it if nothing forbids that."""
        letter = self._mailbox.take(self.POLL_S)
        newest = self._mailbox.newest()
        blocker = self._readiness.blocker(self._clock(), newest.stamp_s if newest else None)
        if blocker != self.waiting_for:
            self.waiting_for = blocker
            quiet = blocker in ("", "no instruction")
            self._say(
                "info" if quiet else "warn", f"not acting: {blocker}" if blocker else "acting"
            )
        if letter is None or blocker or self._stop.is_set():
            return
        instruction, begun_s = self._readiness.instruction, self._clock()
        try:
            step = self._policy.act(self._decode(letter.content), instruction)
        except LapaError as error:
            self._say("error", f"no command: {error}")
            return
        done_s = self._clock()
        if done_s - begun_s > self._period_s:
            self._say(
                "warn",
                f"inference took {done_s - begun_s:.3f} s, more than the period of {self._period_s:g} s",
            )
        if self._readiness.instruction != instruction or self._stop.is_set():
            return  # the world moved on while the policy thought
        if done_s - letter.stamp_s > self._readiness.max_age_s:
            self._say(
                "warn",
                f"no command: its frame is {done_s - letter.stamp_s:.3f} s old after inference",
            )
            return
        self.num_steps += 1
        self.last = Thought(step=step, observation_s=letter.stamp_s, inference_s=done_s - begun_s)
        self._emit(self.last)
