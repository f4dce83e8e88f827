# SPDX-License-Identifier: Apache-2.0
"""Plays a recorded episode on the arm, delta by delta, each only after the arm has confirmed the one before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from lapa_msgs.msg import ArmState
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.data.replay import Replay
from lapa_core.errors import ContractError
from lapa_core.robot.contract import RobotContract
from lapa_ros.geometry import from_pose
from lapa_ros.remote import GraphError, wait_until

SOURCE = "policy"
"""A replay ranks as a policy does, so that an operator may take the arm over."""
APPROACH_STEP_M, APPROACH_STEP_RAD = 0.02, 0.1
"""Longest delta on the way to where an episode begins [m], [rad]: at 5 Hz as slow as the default of teleoperation."""
NEAR_STEPS = 0.1
"""Below this share of one such delta the arm is there."""


@dataclass(frozen=True, kw_only=True)
class PlayReport:
    """What came of a replay."""

    applied: int
    """Deltas that the arm applied."""
    deviation_m: NDArray[np.float64]
    """(T,) distance of the measured path from the recorded one, both from their own start [m]; empty without poses."""

    def __str__(self) -> str:
        if not len(self.deviation_m):
            return f"{self.applied} deltas applied; no recorded pose to compare with"
        mean_mm, most_mm = 1e3 * self.deviation_m.mean(), 1e3 * self.deviation_m.max()
        return (
            f"{self.applied} deltas applied; the end effector's path is {mean_mm:.1f} mm from the recorded one on "
            f"average, {most_mm:.1f} mm at most"
        )


def check(replay: Replay, contract: RobotContract, speed: float) -> float:
    """Return the period between two deltas [s].

    Raises:
        ContractError: the episode belongs to another contract or rate, or so slowly the watchdog would hold the arm.
    """
    if replay.contract_hash and replay.contract_hash != contract.hash:
        raise ContractError(
            f"{replay.label} was recorded under contract {replay.contract_hash[:12]}, this is {contract.name} "
            f"{contract.hash[:12]}; replay it on the robot that it was recorded on"
        )
    if abs(replay.rate_hz / contract.control_rate_hz - 1) > 0.01:
        raise ContractError(
            f"{replay.label} has {replay.rate_hz:g} deltas a second, the contract's control rate is "
            f"{contract.control_rate_hz:g} Hz"
        )
    period_s = 1.0 / (contract.control_rate_hz * speed)
    if period_s > 0.8 * contract.watchdog_s:
        slowest = 1.0 / (contract.control_rate_hz * 0.8 * contract.watchdog_s)
        raise ContractError(
            f"speed is {speed:g}; slower than {slowest:.2f} the watchdog ({contract.watchdog_s:g} s) would hold the "
            "arm between two deltas"
        )
    return period_s


def approach(replay: Replay, contract: RobotContract, start_44: NDArray[np.float64]) -> Replay:
    """Return the slow straight way from a commanded pose (4, 4) to where the episode begins; empty without poses.

    Recordings begin wherever the operator was. Deltas from another place would be another path, and the same table or
    hand would be elsewhere on it.
    """
    empty = replace(
        replay, label=f"the way to {replay.label}", actions=np.zeros((0, 7)), states=None
    )
    if replay.states is None:
        return empty
    first = replay.states[0]
    wanted_m = np.clip(first[:3], contract.workspace_min_m, contract.workspace_max_m)
    move_m = wanted_m - start_44[:3, 3]
    turn = Rotation.from_rotvec(first[3:6]) * Rotation.from_matrix(start_44[:3, :3]).inv()
    turn_rad = turn.as_rotvec()
    sizes = np.linalg.norm(move_m) / APPROACH_STEP_M, np.linalg.norm(turn_rad) / APPROACH_STEP_RAD
    count = int(np.ceil(max(sizes)))
    if max(sizes) < NEAR_STEPS:
        return empty
    step = np.concatenate([move_m / count, turn_rad / count, replay.actions[0, 6:]])
    return replace(empty, actions=np.tile(step, (count, 1)))


class Player:
    """One replay. `publish` sends a delta and returns its sequence number; `arm` returns the newest arm state.

    `rest` returns the newest of the arm states that did not follow commands.
    """

    CONFIRM_S = 1.0
    """The arm must confirm or refuse a delta within this time [s]."""

    def __init__(
        self,
        replay: Replay,
        period_s: float,
        publish: Callable[[EndEffectorDelta], int],
        arm: Callable[[], ArmState | None],
        rest: Callable[[], ArmState | None],
    ):
        self._replay, self._period_s = replay, period_s
        self._publish, self._arm, self._rest = publish, arm, rest

    def run(self, stop: threading.Event, *, following: bool = False) -> PlayReport:
        """Play to the end.

        Args:
            stop: ends it.
            following: whether the arm follows already, what was played before; a hold since then ends this, too.

        Raises:
            GraphError: the arm refused a delta, was held or fell silent; nothing is sent after that. Or `stop` was set.
        """
        positions = [self._position()]
        total = len(self._replay.actions)
        for number, action in enumerate(self._replay.actions, start=1):
            rest = self._rest()
            before = self._newest()
            if following and before.mode != ArmState.MODE_TRACKING:  # a delta would undo a ~/hold
                raise GraphError(
                    f"the arm no longer follows after delta {number - 1} of {total}: {before.reason}"
                )
            sequence = self._publish(EndEffectorDelta.from_array(action))
            if stop.wait(self._period_s):
                raise GraphError(f"stopped after delta {number} of {total}")
            wait_until(
                partial(self._answered, sequence, before),
                f"the arm to answer delta {number} of {total}", self.CONFIRM_S, stop,
            )  # fmt: skip
            state = self._newest()
            if not self._is_applied(state, sequence, before):
                raise GraphError(
                    f"the arm did not apply delta {number} of {total}: {state.last_refusal or state.reason}"
                )
            held = self._rest()
            if following and held is not None and held is not rest:  # this delta has undone it
                raise GraphError(
                    f"the arm was held before delta {number} of {total}: {held.reason}"
                )
            following = True
            positions.append(self._position())
        return PlayReport(applied=total, deviation_m=self._deviation(np.array(positions[:-1])))

    def _answered(self, sequence: int, before: ArmState) -> bool:
        state = self._newest()
        return self._is_applied(state, sequence, before) or state.refused > before.refused

    def _is_applied(self, state: ArmState, sequence: int, before: ArmState) -> bool:
        """Tell by the count too: the arm may name a delta of that number from a run before this one."""
        named = state.last_applied_source == SOURCE and state.last_applied_sequence == sequence
        return named and state.applied > before.applied

    def _newest(self) -> ArmState:
        state = self._arm()
        if state is None:
            raise GraphError("no arm state was ever received; is the arm node running?")
        return state

    def _position(self) -> NDArray[np.float64]:
        return from_pose(self._newest().measured_pose)[:3, 3]

    def _deviation(self, measured_T3: NDArray[np.float64]) -> NDArray[np.float64]:
        states = self._replay.states
        if states is None:
            return np.zeros(0)
        recorded_T3 = states[:, :3]
        moved = (measured_T3 - measured_T3[0]) - (recorded_T3 - recorded_T3[0])
        return np.linalg.norm(moved, axis=1)
