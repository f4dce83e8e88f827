# SPDX-License-Identifier: Apache-2.0
"""Judge one recorded episode: its rows, what they look like, and every reason to leave it out.

`lapa data export`, `doctor` and `review` all judge by this. Imports numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lapa_core.data.curation import CURATION_NAME, Mark, decisions_elsewhere, load_marks
from lapa_core.data.liveliness import at_cap, stands_still
from lapa_core.data.mcap_episode import Recording, read_recording
from lapa_core.data.recorded_rows import RowLimits, RowReport, Rows, at_times, build_rows
from lapa_core.errors import ContractError, DataError
from lapa_core.robot.contract import RobotContract, load_contract

RECORDING, UNFINISHED = ".mcap", ".mcap.part"
_UNFINISHED = (
    "it is unfinished: stop its recorder, or if that was killed, recover it (--recover, or start the "
    "recorder node, which does so)"
)
_DELTA_FIELDS = (
    "header", "observation_stamp", "source", "sequence", "translation", "rotation", "gripper", "contract_hash",
)  # fmt: skip
_ARM_FIELDS = (
    "header", "applied", "last_applied_source", "last_applied_sequence", "measured_pose", "measured_gripper",
    "contract_hash",
)  # fmt: skip
"""What is read of a message; its definition is the file's own, which may be older."""


@dataclass(frozen=True, kw_only=True)
class EpisodeReport:
    """What one recording is worth."""

    path: Path
    """The MCAP file."""
    instruction: str = ""
    """What was asked for."""
    rows: RowReport
    """Counts, times and refusals."""
    still_share: float = float("nan")
    """Share of rows in which nothing moves."""
    saturated_share: float = float("nan")
    """Share of rows whose translation or rotation is at the contract's cap: the operator wanted more."""
    recorder_dropped: int = 0
    """Messages that the recorder's queue had no room for, of any topic."""
    known: bool = False
    """The data set held this recording before."""

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against the episode."""
        return not self.rows.refusals

    def line(self) -> str:
        """One line for people."""
        if self.known:
            return f"{self.path.name}: exported before"
        if self.rows.refusals:
            return f"{self.path.name}: REFUSED: {'; '.join(self.rows.refusals)}"
        row = self.rows
        trimmed = f"{row.trimmed} trimmed, " if row.trimmed else ""
        parted = f"{row.parted} parted from the rows by those, " if row.parted else ""
        return (
            f"{self.path.name}: {row.rows} rows at {row.rate_hz:.2f} Hz, longest gap "
            f"{row.max_gap_s:.2f} s, frame age p95 {1e3 * row.staleness_p95_s:.0f} ms, "
            f"{self.still_share:.0%} still, {trimmed}{row.not_applied} not applied, {at_times(row.dropped_s)} dropped, "
            f"{parted}"
            f"{self.recorder_dropped} messages lost by the recorder: {self.instruction!r}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """A report, and what an export of the episode needs."""

    report: EpisodeReport
    """The verdict."""
    recording: Recording | None = None
    """The small messages; None where the file cannot be read."""
    rows: Rows | None = None
    """The rows; None where the report names a refusal."""
    topics: dict[str, str]
    """Picture topic of each camera of the contract."""
    contract: RobotContract | None = None
    """The contract that it was judged under."""


def list_recordings(folder: Path) -> list[Path]:
    """Return every recording under a folder, finished or not, in order of its path.

    Raises:
        DataError: there is none.
    """
    found = sorted(p for p in folder.rglob("*") if p.name.endswith((RECORDING, UNFINISHED)))
    if not found:
        lacks = f"holds no {RECORDING} file" if folder.is_dir() else "is no folder"
        raise DataError(f"{folder} {lacks}; give the folder that the recorder wrote to")
    return found


def list_marked(folder: Path) -> list[tuple[Path, Mark | None]]:
    """Return every recording under a folder, in order of its path, with the decision about it.

    Raises:
        DataError: there is none, or two of one name, by which a data set knows what it holds; or a decision would be
            lost: it is about a recording that is not there, or lies in the `curation.jsonl` of another folder.
    """
    files, marks = list_recordings(folder), load_marks(folder)
    first_of: dict[str, Path] = {}
    for path in files:
        if (first := first_of.setdefault(path.name, path)) is not path:
            raise DataError(
                f"{first} and {path} have one name, by which a data set knows its recordings; rename one"
            )
    names = [path.relative_to(folder).as_posix() for path in files]
    if unknown := sorted(set(marks) - set(names)):
        raise DataError(
            f"{CURATION_NAME} of {folder} names {unknown[:3]}, which are not there; put them back or remove "
            "the lines"
        )
    elsewhere = decisions_elsewhere(folder)
    for path, name in zip(files, names, strict=True):
        other = elsewhere.get(path.resolve())
        if other is not None and name not in marks:
            raise DataError(
                f"{other} decides about {name}, which would be ignored here; give the folder {other.parent}, or "
                f"decide again in `lapa data review --recordings {folder}`"
            )
    return [(path, marks.get(name)) for path, name in zip(files, names, strict=True)]


def judge(
    path: Path,
    *,
    contract: RobotContract | None = None,
    outcomes: Sequence[str] = (),
    limits: RowLimits | None = None,
    mark: Mark | None = None,
) -> Judged:
    """Read a recording and judge it.

    Args:
        path: the MCAP file.
        contract: what it must have been recorded under; None takes the one that it names.
        outcomes: outcomes that are accepted; empty accepts every one.
        limits: what its rows must satisfy.
        mark: a reviewer's decision about it.
    """
    if path.name.endswith(UNFINISHED):
        return _unread(path, _UNFINISHED)
    if mark is not None and not mark.keep:
        return _unread(path, f"a reviewer dropped it{f': {mark.note}' if mark.note else ''}")
    try:
        recording = read_recording(path)
        _check_fields(path, "delta", recording.deltas, _DELTA_FIELDS)
        _check_fields(path, "arm_state", recording.arm_states or [], _ARM_FIELDS)
        contract = contract or load_contract(str(recording.metadata.get("contract_name", "")))
    except (ContractError, DataError) as error:
        return _unread(path, str(error))
    instruction = str(recording.metadata.get("instruction", "")).strip()
    limits = limits or RowLimits()
    refusals = _refusals(recording, contract, tuple(outcomes))
    try:
        topics = {n: picture_topic(recording, c.topic) for n, c in contract.cameras.items()}
    except DataError as error:
        return replace(_unread(path, str(error)), recording=recording)
    stamps_s = {n: recording.picture_stamps_s.get(t, np.zeros(0)) for n, t in topics.items()}
    rows, result = build_rows(
        recording.deltas,
        recording.arm_states,
        stamps_s,
        contract.control_rate_hz,
        limits,
        _span(recording, mark),
        first_picture_s(recording),
    )
    still = saturated = float("nan")
    if rows is not None:
        still = float(stands_still(rows.actions).mean())
        saturated = float(at_cap(rows.actions, contract).mean())
        refusals += _unlively(still, saturated, limits)
    lost = recording.metadata.get("num_dropped") or {}
    report = EpisodeReport(
        path=path,
        instruction=instruction,
        rows=replace(result, refusals=(*refusals, *result.refusals)),
        still_share=still,
        saturated_share=saturated,
        recorder_dropped=sum(lost.values()),
    )
    return Judged(
        report=report,
        recording=recording,
        rows=None if report.rows.refusals else rows,
        topics=topics,
        contract=contract,
    )


def _check_fields(path: Path, name: str, messages: Sequence[Any], needed: Sequence[str]) -> None:
    lacks = [field for field in needed if messages and not hasattr(messages[0], field)]
    if lacks:
        raise DataError(
            f"{path}: its {name} messages lack {lacks}; it was recorded by another version, export it with that one"
        )


def _unread(path: Path, reason: str) -> Judged:
    report = EpisodeReport(path=path, rows=RowReport(refusals=(reason,)))
    return Judged(report=report, topics={})


def first_picture_s(recording: Recording) -> float:
    """Return the stamp of the first picture [s]: what a reviewer's times count from. 0 without pictures."""
    return min((float(s.min()) for s in recording.picture_stamps_s.values() if len(s)), default=0.0)


def _span(recording: Recording, mark: Mark | None) -> tuple[float, float]:
    if mark is None or not mark.trims:
        return -np.inf, np.inf
    start_s = first_picture_s(recording)
    return start_s + mark.first_s, np.inf if mark.last_s is None else start_s + mark.last_s


def _unlively(still: float, saturated: float, limits: RowLimits) -> list[str]:
    refusals = []
    if still > limits.max_still_share:
        refusals.append(
            f"nothing moves in {still:.0%} of its rows, at most {limits.max_still_share:.0%} may be still: trim it in "
            "`lapa data review`"
        )
    if saturated > limits.max_saturated_share:
        refusals.append(
            f"{saturated:.0%} of its deltas are at the contract's caps, at most {limits.max_saturated_share:.0%} may "
            "be: demonstrate it more slowly"
        )
    return refusals


def _refusals(
    recording: Recording, contract: RobotContract, outcomes: tuple[str, ...]
) -> list[str]:
    """Reasons that lie in what the recorder and the nodes say about themselves."""
    refusals = []
    metadata = recording.metadata
    if not str(metadata.get("instruction", "")).strip():
        refusals.append("its instruction is empty; an episode without one cannot train a policy")
    outcome = str(metadata.get("outcome", ""))
    if outcomes and outcome not in outcomes:
        refusals.append(
            f"its outcome is {outcome!r}; exported are {list(outcomes)}: name it to export it too"
        )
    said = {("the recorder", str(metadata.get("contract_hash", "")))}
    said |= {(f"source {m.source!r}", m.contract_hash) for m in recording.deltas}
    said |= {("the arm", m.contract_hash) for m in recording.arm_states or []}
    for who, stated in sorted(said):
        if stated != contract.hash:
            refusals.append(
                f"{who} used robot contract {stated[:12]!r}, the export uses {contract.name} "
                f"{contract.hash[:12]!r}; restore that contract or record again"
            )
    return refusals


def picture_topic(recording: Recording, base: str) -> str:
    """The recorded topic of a camera, raw rather than compressed, in whatever namespace."""
    for suffix in ("/image_raw", "/image_raw/compressed"):
        wanted = f"{base.strip('/')}{suffix}"
        found = [t for t in recording.picture_stamps_s if f"/{t.strip('/')}".endswith(f"/{wanted}")]
        if len(found) > 1:
            raise DataError(
                f"{recording.path}: topics {found} could all be camera {base}; record one robot each"
            )
        if found:
            return found[0]
    return base
