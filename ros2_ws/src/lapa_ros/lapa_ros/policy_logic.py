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
from typing import Any, NamedTuple, Protocol

from lapa_core.errors import LapaError, ServerError
from lapa_core.policy import PolicyStep
from lapa_core.robot.contract import RobotContract
from lapa_ros.arm_report import ArmReport, arm_blocker
from lapa_ros.mailbox import Letter, Mailbox
from lapa_ros.troubles import Troubles

Say = Callable[[str, str], None]

CLOCK_TOLERANCE_S = 0.05
"""How far in the future a frame's stamp may lie, as at the arm's gate [s]."""


class Actor(Protocol):
    """What thinks: `lapa_core.policy.Policy`, or a stand-in that a test writes."""

    def act(self, frame_HWC: Any, instruction: str) -> PolicyStep:
        """Decide on one delta for one RGB frame."""

    def reset(self) -> None:
        """Forget what was done so far: an episode begins."""


class Asked(NamedTuple):
    """What the policy is asked to do, and how often it was asked anything: the same words may be asked again."""

    instruction: str
    """The words; "" asks for nothing."""
    generation: int
    """Counts up with every call of `Readiness.instruct`."""


class Readiness:
    """Why the policy does not act at present; "" when it may. Callbacks write, the worker reads.

    Attributes:
        lock: held while a thought goes out. Whoever changes under it what is asked, and what belongs to that,
            sees no thought of what was asked before once it has the lock.
        asked: what is to be done.
        arm: what the arm node said last; None before that.
        num_deaf: how often it said that it does not obey.
    """

    def __init__(self, contract: RobotContract):
        self._contract = contract
        self.max_age_s = contract.max_observation_age_s
        self.lock = threading.RLock()
        self.asked = Asked("", 0)
        self.arm: ArmReport | None = None
        self.num_deaf = 0

    @property
    def instruction(self) -> str:
        """The words of what is asked, or ""."""
        return self.asked.instruction

    @property
    def moment(self) -> tuple[Asked, int]:
        """What changes with all that a thought must not outlive: another instruction, an arm that was stopped."""
        return self.asked, self.num_deaf

    def hear_arm(self, report: ArmReport) -> None:
        """Take what the arm node says; after it does not obey, no thought that was begun before goes out."""
        with self.lock:
            self.arm = report
            self.num_deaf += not report.obeys

    def instruct(self, instruction: str) -> None:
        """Ask for something, or for nothing with ""; no thought of what was asked before goes out after this."""
        with self.lock:
            self.asked = Asked(instruction.strip(), self.asked.generation + 1)

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
        return arm_blocker(self.arm, self._contract, now_s, "this policy")


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
        troubles: what hinders its thinking: frames that cannot be used, inference that takes too long.
    """

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
        self.troubles = Troubles(say)
        self._blocker = self.waiting_for = "not started"
        self._failure = ""
        self._begun: Asked | None = None
        self.num_steps = 0
        self.last: Thought | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread, after the inference under way; return whether it ended in time."""
        self._stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_thinking(self) -> bool:
        """Whether its thread is alive."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.turn()
        except Exception:
            # Broad on purpose: nobody joins this thread. The node would look alive and never act again.
            self._say("error", f"the policy crashed:\n{traceback.format_exc()}")
            self._on_crash()

    def turn(self) -> None:
        """Wait for a due frame, at most `POLL_S`, and act on it if nothing forbids that."""
        moment = self._readiness.moment
        letter = self._mailbox.take(self.POLL_S)
        newest, now_s = self._mailbox.newest(), self._clock()
        blocker = self._readiness.blocker(now_s, newest.stamp_s if newest else None)
        self._say_blocker(blocker)
        self.troubles.look(now_s)
        if blocker:
            self._failure = ""  # of frames that are gone
        elif letter is not None and not self._stop.is_set():
            self._failure = self._think(letter, moment)
        self.waiting_for = blocker or self._failure

    def _say_blocker(self, blocker: str) -> None:
        if blocker == self._blocker:
            return
        self._blocker = blocker
        quiet = blocker in ("", "no instruction")
        self._say("info" if quiet else "warn", f"not acting: {blocker}" if blocker else "acting")

    def _think(self, letter: Letter[Any], moment: tuple[Asked, int]) -> str:
        """Turn a frame into a thought that goes out; return why there is none although there should be, or ""."""
        asked, _ = moment
        if self._readiness.moment != moment:
            self._mailbox.restart()  # the frame may be from before that; the next one is not
            return self._failure
        begun_s = self._clock()
        if self._begun != asked:
            self._begun = asked
            self._policy.reset()
        try:
            step = self._policy.act(self._decode(letter.content), asked.instruction)
        except LapaError as error:
            name, text = "unusable frames", f"the frame cannot be used: {error}"
            if isinstance(error, ServerError):
                name, text = "policy server", str(error)
            self.troubles.happened(name, f"no command: {text}", self._clock(), "error")
            return text
        done_s = self._clock()
        inference_s, age_s = done_s - begun_s, done_s - letter.stamp_s
        if inference_s > self._period_s:
            slow = (
                f"inference takes {inference_s:.2f} s, more than the period of {self._period_s:g} s"
            )
            self.troubles.happened("slow inference", slow, done_s)
        if age_s > self._readiness.max_age_s:
            text = f"its frame is {age_s:.2f} s old after {inference_s:.2f} s of inference"
            self.troubles.happened("late thoughts", f"no command: {text}", done_s)
            return f"inference is too slow: frames are over {self._readiness.max_age_s:g} s old after it"
        with self._readiness.lock:
            if self._readiness.moment != moment or self._stop.is_set():
                return ""  # the world moved on while the policy thought
            self.num_steps += 1
            self.last = Thought(step=step, observation_s=letter.stamp_s, inference_s=inference_s)
            self._emit(self.last)
        return ""
