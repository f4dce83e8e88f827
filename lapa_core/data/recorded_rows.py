# SPDX-License-Identifier: Apache-2.0
"""From the messages of one recording to training rows: which deltas count, and what was seen before each.

A row is a delta that the arm confirmed as applied. Its frame is the newest one of each camera stamped
at or before the observation that the delta answers, its state the newest measured pose at or before
it. What does not fit is counted or refused with a reason, never filled in. Between two rows no applied
delta is missing, so that chunks of actions, achieved deltas and replays are what the arm did: where one
has no fresh frame or pose, only the longer side of it is kept. Imports numpy and scipy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.data.confirmation import applied_deltas
from lapa_core.errors import ActionError, DataError

ROUNDING_S = 1e-6
"""Two stamps of one instant may differ by so much where one of them went through a float [s]."""


@dataclass(frozen=True, kw_only=True)
class RowLimits:
    """What an episode must satisfy to be exported."""

    max_staleness_s: float = 0.3
    """Oldest frame or measured pose that a row may have, counted from its observation [s]."""
    max_gap_s: float = 1.0
    """Longest time between two rows [s]."""
    max_rate_deviation: float = 0.2
    """Largest relative difference between the median rate of the rows and the control rate."""
    max_dropped_fraction: float = 0.05
    """Largest share of applied deltas that may be left out: those without a fresh frame or pose, and those that these
    part from the longest run of the others."""
    min_rows: int = 2
    """Fewest rows of an episode."""
    max_still_share: float = 0.5
    """Largest share of rows in which nothing moves; BridgeData's sample has 10 % (its last rows)."""
    max_saturated_share: float = 0.5
    """Largest share of rows whose translation or rotation is at the contract's cap."""
    accept_unconfirmed: bool = False
    """Take every delta as applied where arm_state was not recorded; such rows have no state."""

    def __post_init__(self) -> None:
        for name in ("max_staleness_s", "max_gap_s", "max_rate_deviation"):
            if not getattr(self, name) > 0:
                raise DataError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("max_still_share", "max_saturated_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"{name} is {getattr(self, name)}; allowed is 0 to 1")
        if not 0 <= self.max_dropped_fraction < 1 or self.min_rows < 1:
            raise DataError(
                f"max_dropped_fraction is {self.max_dropped_fraction} and min_rows {self.min_rows}; "
                "allowed are 0 to below 1 and at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class RowReport:
    """What became of the messages of one episode."""

    rows: int = 0
    """Rows exported."""
    deltas: int = 0
    """Deltas recorded."""
    not_applied: int = 0
    """Deltas that the arm refused or never saw."""
    trimmed: int = 0
    """Applied deltas that a reviewer left out."""
    dropped: int = 0
    """Applied deltas without a fresh frame of each camera or without a fresh measured pose."""
    dropped_s: tuple[float, ...] = ()
    """When those were commanded, counted as a reviewer's times are [s]."""
    parted: int = 0
    """Applied deltas that those part from the rows."""
    without_observation: int = 0
    """Rows whose delta answers no observation (an operator's): their own stamp is used."""
    repeated_frames: int = 0
    """Rows that have the same frame as the row before."""
    rate_hz: float = float("nan")
    """Median rate of the rows [Hz]."""
    max_gap_s: float = float("nan")
    """Longest time between two rows [s]."""
    staleness_p95_s: float = float("nan")
    """95th percentile of the age of the frames at their observation [s]."""
    refusals: tuple[str, ...] = ()
    """Why the episode is not exported; empty when it is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The rows of one episode, all of equal length T."""

    actions: NDArray[np.float64]
    """(T, 7) commanded deltas in the order of `ACTION_NAMES`."""
    states: NDArray[np.float64] | None
    """(T, 7) measured position [m], rotation vector [rad] in base_link, gripper (0 closed, 1 open);
    None where arm_state was not recorded."""
    observation_s: NDArray[np.float64]
    """(T,) stamp of the observation that each delta answers [s]."""
    command_s: NDArray[np.float64]
    """(T,) stamp of each delta [s]."""
    frame_index: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """(T,) per camera: position among the recorded frames."""
    frame_s: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """(T,) per camera: stamp of the frame [s]."""


def build_rows(
    deltas: Sequence[Any],
    arm_states: Sequence[Any] | None,
    frame_stamps_s: Mapping[str, NDArray[np.float64]],
    control_rate_hz: float,
    limits: RowLimits,
    span_s: tuple[float, float] = (-np.inf, np.inf),
    start_s: float = 0.0,
) -> tuple[Rows | None, RowReport]:
    """Match the messages of one episode.

    Args:
        deltas: decoded `EndEffectorDelta` messages in the order of arrival.
        arm_states: decoded `ArmState` messages in the order of arrival; None when not recorded.
        frame_stamps_s: camera name to the stamps of its frames [s].
        control_rate_hz: rate that the rows should have [Hz].
        limits: what is accepted.
        span_s: stamps of the first and the last delta that a reviewer keeps [s].
        start_s: stamp that times in the report count from [s].

    Returns:
        The rows, or None when the report names a refusal; and the report.
    """
    refusals: list[str] = []
    if not deltas:
        refusals.append("no delta was recorded")
    empty = sorted(name for name, stamps in frame_stamps_s.items() if not len(stamps))
    if empty or not frame_stamps_s:
        refusals.append(f"no frame was recorded of camera {', '.join(empty) or '(none)'}")
    if not arm_states and not limits.accept_unconfirmed:
        refusals.append(
            "arm_state was not recorded, so nobody knows which deltas were applied; record it, or "
            "accept unconfirmed deltas"
        )
    if refusals:
        return None, RowReport(deltas=len(deltas), refusals=tuple(refusals))
    applied, reasons = applied_deltas(deltas, arm_states)
    refusals += reasons
    kept = [m for m in applied if span_s[0] <= seconds(m.header.stamp) <= span_s[1]]
    values, bad = _delta_values(kept)
    refusals += bad
    report: dict[str, Any] = {
        "deltas": len(deltas),
        "not_applied": len(deltas) - len(applied),
        "trimmed": len(applied) - len(kept),
    }
    if bad or not kept:
        none = (
            "the arm applied none of the deltas"
            if not applied
            else "nothing is left after trimming"
        )
        refusals += [] if bad else [none]
        return None, RowReport(**report, refusals=tuple(refusals))
    return _match(
        kept, values, arm_states, frame_stamps_s, control_rate_hz, limits, start_s, report, refusals
    )


def _match(
    applied: Sequence[Any],
    values: NDArray[np.float64],
    arm_states: Sequence[Any] | None,
    frame_stamps_s: Mapping[str, NDArray[np.float64]],
    control_rate_hz: float,
    limits: RowLimits,
    start_s: float,
    report: dict[str, Any],
    refusals: list[str],
) -> tuple[Rows | None, RowReport]:
    """Give every applied delta its frames and its pose, and judge the result."""
    command_s = np.array([seconds(m.header.stamp) for m in applied])
    answered_s = np.array([seconds(m.observation_stamp) for m in applied])
    observation_s = np.where(answered_s > 0, answered_s, command_s)
    sources = {f"camera {name}": stamps for name, stamps in frame_stamps_s.items()}
    if arm_states:
        sources["arm_state"] = np.array([seconds(m.header.stamp) for m in arm_states])
    matched, fresh = {}, np.ones(len(applied), dtype=bool)
    for name, stamps in sources.items():
        matched[name], age_s = newest_before(stamps, observation_s)
        usable = age_s <= limits.max_staleness_s
        if not usable.any():
            seen = "later than" if not np.isfinite(age_s).any() else f"{np.min(age_s):.2f} s before"
            refusals.append(
                f"{name} is stamped {seen} every observation; its clock differs from that of the "
                "deltas, or it stood still"
            )
        fresh &= usable
    whole = longest_run(fresh)
    report["dropped_s"] = tuple((command_s[~fresh] - start_s).tolist())
    report["parted"] = int(fresh.sum() - whole.sum())
    left_out = int((~whole).sum())
    if left_out > limits.max_dropped_fraction * len(applied):
        refusals.append(
            f"{at_times(report['dropped_s'])} of {len(applied)} applied deltas have no frame or pose within "
            f"{limits.max_staleness_s:g} s; {left_out} with those that they part from the rest, at most "
            f"{limits.max_dropped_fraction:.0%} may be left out: trim it in `lapa data review`"
        )
    index = {name: matched[f"camera {name}"][whole] for name in frame_stamps_s}
    states = None
    if arm_states:
        states = _measured([arm_states[i] for i in matched["arm_state"][whole]])
        if not np.isfinite(states).all():
            refusals.append("a measured pose is not finite")
    rows = Rows(
        actions=values[whole],
        states=states,
        observation_s=observation_s[whole],
        command_s=command_s[whole],
        frame_index=index,
        frame_s={name: frame_stamps_s[name][chosen] for name, chosen in index.items()},
    )
    report["dropped"] = len(report["dropped_s"])
    report |= _timing(rows, int((answered_s[whole] <= 0).sum()))
    refusals += _judge(report, control_rate_hz, limits)
    result = RowReport(**report, refusals=tuple(refusals))
    return (None if refusals else rows), result


def longest_run(wanted_T: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the places lie in the longest run of wanted ones, the first of several; none where none is."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted_T, [False]]).astype(int)))
    longest = np.zeros(len(wanted_T), dtype=bool)
    if len(edges):
        starts, stops = edges[::2], edges[1::2]
        place = np.argmax(stops - starts)
        longest[starts[place] : stops[place]] = True
    return longest


def at_times(times_s: Sequence[float], shown: int = 5) -> str:
    """Say how many there are and when the first of them were, such as "2 (at 3.40, 3.60 s)"."""
    if not len(times_s):
        return "0"
    listed = ", ".join(f"{time_s:.2f}" for time_s in times_s[:shown])
    return f"{len(times_s)} (at {listed}{' ...' if len(times_s) > shown else ''} s)"


def achieved_rows(rows: Rows) -> Rows:
    """Return the rows with what the arm did as actions, instead of what it was told; the last row has none and goes.

    Action t leads from the measured pose of row t to that of row t + 1: the difference of the positions [m] along
    `base_link`, the rotation on the left [rad], and the gripper of row t + 1.

    Raises:
        DataError: the rows have no measured pose, or there is only one.
    """
    if rows.states is None or len(rows.states) < 2:
        raise DataError(
            "achieved deltas need two rows with a measured pose; record arm_state, or export commanded ones"
        )
    before, after = rows.states[:-1], rows.states[1:]
    turn = Rotation.from_rotvec(after[:, 3:6]) * Rotation.from_rotvec(before[:, 3:6]).inv()
    actions = np.concatenate([after[:, :3] - before[:, :3], turn.as_rotvec(), after[:, 6:]], axis=1)
    return Rows(
        actions=actions,
        states=before,
        observation_s=rows.observation_s[:-1],
        command_s=rows.command_s[:-1],
        frame_index={name: index[:-1] for name, index in rows.frame_index.items()},
        frame_s={name: stamps[:-1] for name, stamps in rows.frame_s.items()},
    )


def newest_before(
    stamps_s: NDArray[np.float64], times_s: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each time, the position of the newest stamp at or before it and its age (inf where none).

    Stamps may arrive out of order; positions are those of the given array.
    """
    order = np.argsort(stamps_s, kind="stable")
    place = np.searchsorted(stamps_s[order], times_s + ROUNDING_S, side="right") - 1
    index = order[np.maximum(place, 0)]
    age_s = np.where(place >= 0, np.maximum(times_s - stamps_s[index], 0.0), np.inf)
    return index, age_s


def _delta_values(applied: Sequence[Any]) -> tuple[NDArray[np.float64], list[str]]:
    rows = []
    for message in applied:
        move, turn = message.translation, message.rotation
        numbers = (move.x, move.y, move.z, turn.x, turn.y, turn.z, message.gripper)
        try:
            rows.append(EndEffectorDelta.from_array(numbers).to_array())
        except ActionError as error:
            return np.zeros((0, 7)), [f"delta {message.sequence} of {message.source}: {error}"]
    return np.array(rows).reshape(-1, 7), []


def _measured(states: Sequence[Any]) -> NDArray[np.float64]:
    rows = []
    for state in states:
        position, turn = state.measured_pose.position, state.measured_pose.orientation
        quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
        valid = np.isfinite(quaternion).all() and np.linalg.norm(quaternion) > 0.5
        vector = Rotation.from_quat(quaternion).as_rotvec() if valid else np.full(3, np.nan)
        rows.append([position.x, position.y, position.z, *vector, state.measured_gripper])
    return np.array(rows, dtype=np.float64).reshape(-1, 7)


def _timing(rows: Rows, without_observation: int) -> dict[str, Any]:
    gaps_s = np.diff(rows.observation_s)
    ages_s = np.concatenate([rows.observation_s - stamps for stamps in rows.frame_s.values()])
    first_camera = next(iter(rows.frame_index.values()))
    return {
        "rows": len(rows.actions),
        "without_observation": without_observation,
        "repeated_frames": int((np.diff(first_camera) == 0).sum()),
        "rate_hz": float(1 / np.median(gaps_s))
        if len(gaps_s) and np.median(gaps_s) > 0
        else np.nan,
        "max_gap_s": float(gaps_s.max()) if len(gaps_s) else np.nan,
        "staleness_p95_s": float(np.percentile(ages_s, 95)) if len(ages_s) else np.nan,
    }


def _judge(report: Mapping[str, Any], control_rate_hz: float, limits: RowLimits) -> list[str]:
    refusals = []
    if report["rows"] < limits.min_rows:
        refusals.append(f"it has {report['rows']} rows; at least {limits.min_rows} are needed")
        return refusals
    if report["max_gap_s"] > limits.max_gap_s:
        refusals.append(
            f"{report['max_gap_s']:.2f} s lie between two rows; at most {limits.max_gap_s:g} s may: "
            "raise max_gap_s to accept pauses"
        )
    deviation = abs(report["rate_hz"] / control_rate_hz - 1)
    if not deviation <= limits.max_rate_deviation:  # also refuses NaN
        refusals.append(
            f"its rows come at {report['rate_hz']:.2f} Hz, the contract's control rate is "
            f"{control_rate_hz:g} Hz; at most {limits.max_rate_deviation:.0%} may lie between"
        )
    return refusals


def seconds(stamp: Any) -> float:
    """Return a ROS stamp as a number [s]."""
    return float(stamp.sec) + stamp.nanosec * 1e-9
