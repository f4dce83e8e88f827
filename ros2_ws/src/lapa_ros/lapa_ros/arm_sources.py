# SPDX-License-Identifier: Apache-2.0
"""Which of several sources has the arm: a person above a policy. No ROS: times are seconds of the caller's clock."""

from __future__ import annotations

from collections.abc import Sequence

from lapa_core.errors import ContractError
from lapa_ros.arm_gate import Refused


class SourceArbiter:
    """Gives the arm to one source at a time.

    A higher source takes it at once. While it has it, and for `handover_s` after its last good command, lower
    sources are refused; after that any source may take it.

    Attributes:
        holder: the source that has the arm; "" before the first command.
    """

    def __init__(self, sources: Sequence[str], handover_s: float):
        """Obey `sources`, highest first.

        Raises:
            ContractError: there is none, or one is named twice.
        """
        if not sources or len(set(sources)) != len(sources) or "" in sources:
            raise ContractError(
                f"sources is {list(sources)}; allowed is a list of different names, highest first"
            )
        self.sources = tuple(sources)
        self.holder = ""
        self._handover_s = handover_s
        self._last_s = float("-inf")

    def check(self, source: str, now_s: float) -> None:
        """Refuse a source that may not have the arm now.

        Raises:
            Refused: it is not among the sources, or a higher one has the arm.
        """
        if source not in self.sources:
            raise Refused("source", f"command from {source!r}; the arm obeys {list(self.sources)}")
        rank = self.sources.index
        if self.holder and rank(source) > rank(self.holder):
            left_s = self._handover_s - (now_s - self._last_s)
            if left_s > 0.0:
                raise Refused("source", f"{self.holder} has the arm; {source!r} is refused")

    def take(self, source: str, now_s: float) -> bool:
        """Give the arm to a source whose command is good; return whether another one had it."""
        switched = self.holder not in ("", source)
        self.holder, self._last_s = source, now_s
        return switched

    def forget_times(self, now_s: float) -> None:
        """The clock was set back to `now_s`: the time until a handover begins anew."""
        self._last_s = min(self._last_s, now_s)
