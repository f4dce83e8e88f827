# SPDX-License-Identifier: Apache-2.0
"""One FollowInstruction goal: its clock, its outcome, its sentence. No rclpy; the clock is passed in."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Following:
    """A goal that is being followed.

    It ends with the first of: cancelled, success of the task, an arm that stopped obeying after it had begun,
    time up.
    """

    instruction: str
    """What the arm is asked to do."""
    max_duration_s: float
    """Time limit [s]."""
    started_s: float
    """When it was accepted [s]."""
    outcome: str = ""
    """One of FollowInstruction's OUTCOME constants once it has ended, else ""."""
    message: str = ""
    """The outcome as a sentence."""
    steps: int = 0
    """Commands published for it."""
    blocked_since_s: float | None = field(default=None)
    """Since when the policy has not been able to act [s]."""

    PATIENCE_S = 3.0

    def update(self, now_s: float, *, cancelled: bool, success: bool, waiting_for: str) -> bool:
        """Look at the present state; return whether the goal has ended."""
        if self.outcome:
            return True
        if now_s < self.started_s:  # the clock was set back: the goal has its whole time again
            self.started_s, self.blocked_since_s = now_s, None
        self.blocked_since_s = None if not waiting_for else (self.blocked_since_s or now_s)
        if cancelled:
            self._end("cancelled", f"cancelled after {self.steps} commands")
        elif success:
            self._end("success", f"done after {self.steps} commands")
        elif self.blocked_since_s is not None and now_s - self.blocked_since_s > self.PATIENCE_S:
            self._end("halted", f"not able to act for {self.PATIENCE_S:g} s: {waiting_for}")
        elif now_s - self.started_s > self.max_duration_s:
            self._end(
                "timeout", f"not done within {self.max_duration_s:g} s, {self.steps} commands"
            )
        return bool(self.outcome)

    def _end(self, outcome: str, message: str) -> None:
        self.outcome, self.message = outcome, message
