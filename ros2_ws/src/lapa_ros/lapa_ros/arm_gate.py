# SPDX-License-Identifier: Apache-2.0
"""Which deltas an arm may apply: from the selected source, for this contract, fresh, in order, once, finite.

No ROS here: times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.errors import ActionError
from lapa_core.robot.contract import RobotContract

FRAME = "base_link"
"""The only frame of deltas."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A delta as it came off the wire, unchecked."""

    values: tuple[float, ...]
    """Seven numbers in the order of `ACTION_NAMES`; may be anything."""
    source: str
    """Who commands."""
    sequence: int
    """Counts up per source."""
    stamp_s: float
    """When the command was made [s]."""
    observation_s: float | None
    """When the observation behind it was taken [s]; None where there was none."""
    contract_hash: str
    """Contract that the command was made for."""
    frame: str = FRAME
    """Frame that the displacement is said to be in."""


class Refused(ActionError):
    """A command is not applied. `kind` names the check that failed; the message has the figures."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


class CommandGate:
    """Remembers what was applied last and checks every command against that and the contract."""

    CLOCK_TOLERANCE_S = 0.05
    """How far in the future a stamp may lie: two machines' clocks are never equal [s]."""

    MOST_PER_PERIOD = 2
    """Commands applied within one control period: caps are per delta, so a flood would be a fast arm."""

    def __init__(self, contract: RobotContract, source: str, max_command_age_s: float):
        self._contract = contract
        self.source = source
        self._max_command_age_s = max_command_age_s
        # The delta is one period younger than the limit at which the policy stops using its frame.
        self._max_observation_age_s = (
            contract.max_observation_age_s + 1.0 / contract.control_rate_hz
        )
        self._last_sequence = 0
        self._last_stamp_s = float("-inf")
        self._accepted_s: deque[float] = deque(maxlen=self.MOST_PER_PERIOD)

    def check(self, command: Command, now_s: float, tracking: bool) -> EndEffectorDelta:
        """Return the delta of a good command.

        Args:
            command: what arrived.
            now_s: the caller's clock [s].
            tracking: whether the arm is following commands; a source that restarts counts from 1 again, which
                is believed only after the arm has come to hold, and only of commands made later.

        Raises:
            Refused: with the reason.
        """
        if command.source != self.source:
            raise Refused(
                "source", f"command from {command.source!r}; the arm obeys {self.source!r}"
            )
        if command.contract_hash != self._contract.hash:
            raise Refused(
                "contract",
                f"command for contract {command.contract_hash[:12] or 'none'!r}; "
                f"this arm enforces {self._contract.name} {self._contract.hash[:12]!r}",
            )
        if command.frame != FRAME:
            raise Refused("frame", f"command in frame {command.frame!r}; only {FRAME!r} is allowed")
        self._check_order(command, tracking)
        self._check_rate(now_s)
        self._check_age("command", command.stamp_s, self._max_command_age_s, now_s)
        if command.observation_s is not None:
            self._check_age(
                "observation", command.observation_s, self._max_observation_age_s, now_s
            )
        try:
            return EndEffectorDelta.from_array(command.values)
        except ActionError as error:
            raise Refused("values", str(error)) from error

    def accept(self, command: Command, now_s: float) -> None:
        """Remember a command that was applied at `now_s`."""
        self._accepted_s.append(now_s)
        self._last_sequence = command.sequence
        self._last_stamp_s = command.stamp_s

    def forget_times(self) -> None:
        """The clock was set back: what was remembered of it says nothing about commands made from now on."""
        self._last_stamp_s = float("-inf")
        self._accepted_s.clear()

    def _check_order(self, command: Command, tracking: bool) -> None:
        lower = command.sequence < self._last_sequence
        restarted = lower and not tracking and command.stamp_s > self._last_stamp_s
        if command.sequence > 0 and (restarted or command.sequence > self._last_sequence):
            return
        word = "repeated" if command.sequence == self._last_sequence else "out of order"
        raise Refused(
            "order",
            f"sequence {command.sequence} is {word}; the last applied is {self._last_sequence}",
        )

    def _check_rate(self, now_s: float) -> None:
        period_s = 1.0 / self._contract.control_rate_hz
        full = len(self._accepted_s) == self.MOST_PER_PERIOD
        if full and 0.0 <= now_s - self._accepted_s[0] < 0.9 * period_s:
            raise Refused(
                "rate",
                f"{self.MOST_PER_PERIOD} commands were applied in the last {period_s:g} s; "
                f"the contract allows {self._contract.control_rate_hz:g} per second",
            )

    def _check_age(self, what: str, stamp_s: float, limit_s: float, now_s: float) -> None:
        age_s = now_s - stamp_s
        if age_s > limit_s:
            raise Refused("stale", f"stale {what}: {age_s:.3f} s old; allowed are {limit_s:.3f} s")
        if not age_s > -self.CLOCK_TOLERANCE_S:  # also NaN
            raise Refused(
                "stale", f"{what} is stamped {-age_s:.3f} s in the future; are the clocks in step?"
            )
