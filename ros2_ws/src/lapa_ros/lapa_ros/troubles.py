# SPDX-License-Identifier: Apache-2.0
"""Troubles that recur at the rate of a topic are said when they begin and when they are over, not each time. No ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Open:
    """A trouble that is not over."""

    text: str
    last_s: float
    count: int


class Troubles:
    """Named troubles of one node. Call `look` now and then: a trouble is over when it has not recurred for `CALM_S`."""

    CALM_S = 2.0

    def __init__(self, say: Callable[[str, str], None]):
        """Say through `say`, which takes a level and a sentence."""
        self._say = say
        self._open: dict[str, _Open] = {}

    def happened(self, name: str, text: str, now_s: float, level: str = "warn") -> None:
        """Take note of a trouble; `text` is said unless the trouble of that name is open already."""
        if (open_ := self._open.get(name)) is not None:
            open_.text, open_.last_s, open_.count = text, now_s, open_.count + 1
            return
        self._open[name] = _Open(text, now_s, 1)
        self._say(level, text)

    def look(self, now_s: float) -> None:
        """Say which troubles are over."""
        for name, trouble in list(self._open.items()):
            trouble.last_s = min(trouble.last_s, now_s)  # the clock may have been set back
            if now_s - trouble.last_s > self.CALM_S:
                del self._open[name]
                times = "once" if trouble.count == 1 else f"{trouble.count} times"
                self._say("info", f"over: {name} ({times})")

    def describe(self) -> str:
        """Return what the open troubles said last, or ""."""
        return "; ".join(trouble.text for trouble in list(self._open.values()))
