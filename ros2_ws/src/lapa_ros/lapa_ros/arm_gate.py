# SPDX-License-Identifier: Apache-2.0
"""Which deltas an arm may apply: for this contract, fresh, finite, in order, once, at the contract's rate.

No ROS here: times are seconds of the caller's clock.
"""

from __future__ import annotations

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


@dataclass
class _Heard:
    """What is remembered of one source."""

    sequence: int = 0
    """Number of its newest command."""
    stamp_s: float = float("-inf")
    """Stamp of that command [s]."""
    arrived_s: float = float("-inf")
    """When that command arrived [s]."""
    allowance: float = 0.0
    """Commands that it may give at once [1]."""
    counted_s: float = float("-inf")
    """When the allowance was counted [s]."""
    rival_s: float = float("-inf")
    """When a command of another process arrived [s]."""


class CommandGate:
    """Remembers what each source sent last and checks every command against that and the contract."""

    CLOCK_TOLERANCE_S = 0.05
    """How far in the future a stamp may lie: two machines' clocks are never equal [s]."""

    MOST_AT_ONCE = 2
    """Commands that may come together after a pause: jitter is no flood."""

    RATE_TOLERANCE = 1.1
    """How much faster than the contract's rate commands may come in the long run: caps are per delta, so a flood
    would be a fast arm."""

    def __init__(self, contract: RobotContract, max_command_age_s: float):
        self._contract = contract
        self._max_command_age_s = max_command_age_s
        # The delta is one period younger than the limit at which the policy stops using its frame.
        self._max_observation_age_s = (
            contract.max_observation_age_s + 1.0 / contract.control_rate_hz
        )
        self._heard: dict[str, _Heard] = {}

    def check(self, command: Command, now_s: float, tracking: bool) -> EndEffectorDelta:
        """Return the delta of a good command, and remember its number: it does not pass again.

        Args:
            command: what arrived.
            now_s: the caller's clock [s].
            tracking: whether the arm is following commands; a source that restarts counts from 1 again, which
                is believed only once the arm holds and nothing in order has come from it for the watchdog's
                time, and only of commands made later. Of two processes that both command as one source, neither
                passes until one has been silent for that time.

        Raises:
            Refused: with the reason.
        """
        if command.contract_hash != self._contract.hash:
            raise Refused(
                "contract",
                f"command for contract {command.contract_hash[:12] or 'none'!r}; "
                f"this arm enforces {self._contract.name} {self._contract.hash[:12]!r}",
            )
        if command.frame != FRAME:
            raise Refused("frame", f"command in frame {command.frame!r}; only {FRAME!r} is allowed")
        self._check_age("command", command.stamp_s, self._max_command_age_s, now_s)
        if command.observation_s is not None:
            self._check_age(
                "observation", command.observation_s, self._max_observation_age_s, now_s
            )
        try:
            delta = EndEffectorDelta.from_array(command.values)
        except ActionError as error:
            raise Refused("values", str(error)) from error
        heard = self._heard.setdefault(command.source, _Heard())
        self._check_order(heard, command, now_s, tracking)
        self._check_rate(heard, now_s)
        return delta

    def forget_times(self) -> None:
        """The clock was set back: what was remembered of it says nothing about commands made from now on."""
        for heard in self._heard.values():
            heard.stamp_s = heard.arrived_s = heard.counted_s = heard.rival_s = float("-inf")

    def _check_order(self, heard: _Heard, command: Command, now_s: float, tracking: bool) -> None:
        silent = now_s - heard.arrived_s > self._contract.watchdog_s
        newer = command.stamp_s > heard.stamp_s
        in_order = command.sequence > heard.sequence
        restarted = 0 < command.sequence < heard.sequence and not tracking and silent and newer
        if not in_order and not restarted:
            word = "repeated" if command.sequence == heard.sequence else "out of order"
            problem = f"sequence {command.sequence} is {word}; the last one of {command.source!r} is {heard.sequence}"
            if newer and not silent:  # one process never makes a lower number later
                heard.rival_s = now_s
                problem += f", made earlier: {self._two_processes(command.source)}"
            raise Refused("order", problem)
        heard.sequence, heard.stamp_s, heard.arrived_s = command.sequence, command.stamp_s, now_s
        if restarted:
            heard.rival_s = float("-inf")
        if now_s - heard.rival_s <= self._contract.watchdog_s:
            raise Refused("order", self._two_processes(command.source))

    def _two_processes(self, source: str) -> str:
        return (
            f"two processes command as {source!r}; neither is obeyed until one has been silent "
            f"for {self._contract.watchdog_s:g} s"
        )

    def _check_rate(self, heard: _Heard, now_s: float) -> None:
        rate_hz = self._contract.control_rate_hz
        earned = (now_s - heard.counted_s) * rate_hz * self.RATE_TOLERANCE
        heard.allowance = min(heard.allowance + earned, float(self.MOST_AT_ONCE))
        heard.counted_s = now_s
        if heard.allowance < 1.0:
            raise Refused(
                "rate", f"commands come too fast; the contract allows {rate_hz:g} per second"
            )
        heard.allowance -= 1.0

    def _check_age(self, what: str, stamp_s: float, limit_s: float, now_s: float) -> None:
        age_s = now_s - stamp_s
        if age_s > limit_s:
            raise Refused("stale", f"stale {what}: {age_s:.3f} s old; allowed are {limit_s:.3f} s")
        if not age_s > -self.CLOCK_TOLERANCE_S:  # also NaN
            raise Refused(
                "stale", f"{what} is stamped {-age_s:.3f} s in the future; are the clocks in step?"
            )
