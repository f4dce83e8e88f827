# SPDX-License-Identifier: Apache-2.0
"""A box that holds the newest observation only, and hands each out at most once, at the control rate. No ROS."""

from __future__ import annotations

import threading
from typing import Generic, NamedTuple, TypeVar

from lapa_ros.stamps import Arrival, StampOrder

Content = TypeVar("Content")


class Letter(NamedTuple, Generic[Content]):
    """One observation."""

    stamp_s: float
    """When it was taken [s]."""
    content: Content
    """The observation."""


class Mailbox(Generic[Content]):
    """Newest-only exchange between a callback and a worker thread; both sides may call at any time.

    The worker gets an observation when one period has passed since the stamp of the one it got before. Acting on
    the arrival of a due frame, rather than on a timer, makes the observation as fresh as can be.
    """

    def __init__(self, period_s: float):
        self._period_s = period_s
        self._slack_s = (
            0.05 * period_s
        )  # stamps of a camera grid jitter: a frame this much early is due
        self._arrived = threading.Condition()
        self._order = StampOrder()
        self._newest: Letter[Content] | None = None
        self._taken_s = float("-inf")
        self._due_s = float("-inf")
        self.num_put = 0

    def put(self, stamp_s: float, content: Content) -> str:
        """Replace what is in the box; an observation older than that is ignored.

        Returns:
            A sentence to log when the stamps began anew because a clock was set back; else "".
        """
        with self._arrived:
            arrival = self._order.judge(stamp_s)
            if arrival is Arrival.LATE:
                return ""
            if arrival is Arrival.ANEW:
                # Whatever was remembered is of a time that no longer counts.
                self._taken_s = self._due_s = float("-inf")
            self._newest = Letter(stamp_s, content)
            self.num_put += 1
            self._arrived.notify_all()
        return self._order.describe_step() if arrival is Arrival.ANEW else ""

    def take(self, timeout_s: float) -> Letter[Content] | None:
        """Return the newest observation once it is due, or None when that takes longer than `timeout_s`."""
        with self._arrived:
            if not self._arrived.wait_for(self._is_due, timeout_s):
                return None
            assert self._newest is not None
            stamp_s = self._taken_s = self._newest.stamp_s
            late = stamp_s - self._due_s > self._period_s
            self._due_s = (
                stamp_s if late else self._due_s
            ) + self._period_s  # keep the grid unless a beat was missed
            return self._newest

    def newest(self) -> Letter[Content] | None:
        """Return what is in the box, taken or not, without taking it."""
        with self._arrived:
            return self._newest

    def restart(self, not_before_s: float = float("-inf")) -> None:
        """Forget what is in the box; the next observation to arrive, stamped `not_before_s` or later, is due."""
        with self._arrived:
            self._due_s = float("-inf")
            self._taken_s = not_before_s
            if self._newest is not None:
                self._taken_s = max(not_before_s, self._newest.stamp_s)

    def _is_due(self) -> bool:
        letter = self._newest
        return (
            letter is not None
            and letter.stamp_s > self._taken_s
            and letter.stamp_s >= self._due_s - self._slack_s
        )
