# SPDX-License-Identifier: Apache-2.0
"""Whether a stamp that lies before the newest one is a late message or a clock that was set back. No ROS."""

from __future__ import annotations

from enum import Enum

MAX_LATE_S = 1.0
"""A message is never so late [s]; a clock that was set back by less has caught up after as long."""


class Arrival(Enum):
    """What a stamp says about its message."""

    IN_ORDER = "in order"
    """Not older than the newest one."""
    LATE = "late"
    """Older than the newest one, which stays."""
    ANEW = "anew"
    """The clock was set back: this is the newest one of the time that counts now."""


class StampOrder:
    """Judges the stamps of one topic.

    Two messages in a row, the second after the first and both more than `MAX_LATE_S` before the newest, mean
    that the clock was set back (simulated time that began anew, NTP); a single stray stamp does not.

    Attributes:
        num_late: stamps judged late.
        num_anew: times that the clock was set back.
        step_s: how far it was set back the last time [s].
    """

    def __init__(self) -> None:
        self._newest_s = float("-inf")
        self._suspect_s: float | None = None
        self.num_late = self.num_anew = 0
        self.step_s = 0.0

    def describe_step(self) -> str:
        """Return the sentence to log when the stamps began anew."""
        return f"the clock was set back by {self.step_s:.1f} s; beginning anew"

    def judge(self, stamp_s: float) -> Arrival:
        """Say what `stamp_s` [s] is, and remember it."""
        if stamp_s >= self._newest_s:
            self._newest_s, self._suspect_s = stamp_s, None
            return Arrival.IN_ORDER
        suspect_s, self._suspect_s = self._suspect_s, None
        if self._newest_s - stamp_s > MAX_LATE_S:
            if suspect_s is not None and stamp_s > suspect_s:
                self.num_anew += 1
                self.step_s, self._newest_s = self._newest_s - stamp_s, stamp_s
                return Arrival.ANEW
            self._suspect_s = stamp_s
        self.num_late += 1
        return Arrival.LATE
