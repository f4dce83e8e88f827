# SPDX-License-Identifier: Apache-2.0
"""Turn a folder of recorded MCAP episodes into a LeRobot v3 data set, with a report on every one.

The recordings stay what they are; an export can be repeated with other limits. Running it again after
new recordings adds only those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.checkpoint import provenance
from lapa_core.data import lerobot_format as fmt
from lapa_core.data.lerobot import LeRobotSource, LeRobotWriter
from lapa_core.data.mcap_episode import Recording, read_pictures, read_recording
from lapa_core.data.recorded_rows import RowLimits, RowReport, Rows, build_rows
from lapa_core.data.video import VideoQuality
from lapa_core.errors import DataError
from lapa_core.robot.contract import RobotContract, load_contract

COMMAND_TIME = "command_time"
"""Feature that holds the stamp of each delta [s]."""

_SUFFIXES = (".mcap", ".mcap.part")
_UNFINISHED = (
    "it is unfinished: stop its recorder, or if that was killed, recover it (--recover, or start the "
    "recorder node, which does so)"
)


@dataclass(frozen=True, kw_only=True)
class EpisodeReport:
    """What became of one recording."""

    path: Path
    """The MCAP file."""
    instruction: str
    """What was asked for."""
    rows: RowReport
    """Counts, times and refusals."""
    recorder_dropped: int = 0
    """Messages that the recorder's queue had no room for, of any topic."""
    known: bool = False
    """The data set held this recording before."""

    @property
    def accepted(self) -> bool:
        """Whether the episode is in the data set."""
        return not self.rows.refusals

    def line(self) -> str:
        """One line for people."""
        if self.known:
            return f"{self.path.name}: exported before"
        if self.rows.refusals:
            return f"{self.path.name}: REFUSED: {'; '.join(self.rows.refusals)}"
        row = self.rows
        return (
            f"{self.path.name}: {row.rows} rows at {row.rate_hz:.2f} Hz, longest gap "
            f"{row.max_gap_s:.2f} s, frame age p95 {1e3 * row.staleness_p95_s:.0f} ms, "
            f"{row.not_applied} not applied, {row.dropped} dropped, {self.recorder_dropped} messages "
            f"lost by the recorder: {self.instruction!r}"
        )


def export_recordings(
    recordings: str | Path,
    out: str | Path,
    *,
    contract: str = "",
    outcomes: Sequence[str] = ("success",),
    limits: RowLimits | None = None,
    quality: VideoQuality | None = None,
    on_report: Callable[[EpisodeReport], None] = lambda report: None,
) -> list[EpisodeReport]:
    """Export every `.mcap` file under a folder, in order of its name.

    An unfinished `.mcap.part` is refused: its recorder still runs, or was killed and `recover` can
    rescue it.

    Args:
        recordings: folder of the recordings.
        out: folder of the data set; an existing one is continued.
        contract: name or path of the robot contract; empty takes the name in the first recording.
        outcomes: outcomes that are exported; empty takes every one.
        limits: what an episode must satisfy.
        quality: video compression.
        on_report: called after each recording.

    Returns:
        One report per recording; refused ones are not in the data set.

    Raises:
        DataError: there is no recording, or none could be exported.
        ContractError: the contract does not exist.
    """
    files = sorted(p for p in Path(recordings).rglob("*") if p.name.endswith(_SUFFIXES))
    if not files:
        raise DataError(
            f"{recordings} holds no .mcap file; give the folder that the recorder wrote to"
        )
    exporter = _Exporter(Path(out), contract, tuple(outcomes), limits or RowLimits(), quality)
    reports = []
    for path in files:
        reports.append(exporter.add(path))
        on_report(reports[-1])
    if not any(report.accepted for report in reports):
        raise DataError(
            f"none of {len(files)} recordings could be exported; the first: {reports[0].line()}"
        )
    return reports


class _Exporter:
    """The data set being written, its contract, and what an episode must satisfy."""

    def __init__(
        self,
        out: Path,
        contract: str,
        outcomes: tuple[str, ...],
        limits: RowLimits,
        quality: VideoQuality | None,
    ) -> None:
        self._out, self._outcomes, self._limits = out, outcomes, limits
        self._quality = quality
        self._contract = load_contract(contract) if contract else None
        self._writer: LeRobotWriter | None = None
        self._known: set[str] = set()
        if (out / fmt.INFO_PATH).is_file():
            source = LeRobotSource(out)
            self._known = {source.origin(index) for index in range(len(source))}

    def add(self, path: Path) -> EpisodeReport:
        """Export one recording, or say why not."""
        if path.name in self._known:
            return EpisodeReport(path=path, instruction="", rows=RowReport(), known=True)
        if path.name.endswith(_SUFFIXES[1]):
            return EpisodeReport(path=path, instruction="", rows=RowReport(refusals=(_UNFINISHED,)))
        try:
            recording = read_recording(path)
        except DataError as error:
            return EpisodeReport(path=path, instruction="", rows=RowReport(refusals=(str(error),)))
        instruction = str(recording.metadata.get("instruction", "")).strip()
        contract = self._contract or load_contract(str(recording.metadata.get("contract_name", "")))
        self._contract = contract
        refusals = _refusals(recording, contract, self._outcomes)
        try:
            topics = {n: _topic(recording, c.topic) for n, c in contract.cameras.items()}
        except DataError as error:
            return EpisodeReport(
                path=path, instruction=instruction, rows=RowReport(refusals=(str(error),))
            )
        none = np.zeros(0)
        rows, report = build_rows(
            recording.deltas,
            recording.arm_states,
            {name: recording.picture_stamps_s.get(topic, none) for name, topic in topics.items()},
            contract.control_rate_hz,
            self._limits,
        )
        if rows is not None and not refusals:
            try:
                frames = _frames(recording, rows, topics, contract)
            except DataError as error:
                refusals = [str(error)]
            else:
                self._write(frames, recording, rows, instruction, contract)
        report = RowReport(**{**asdict(report), "refusals": (*refusals, *report.refusals)})
        lost = recording.metadata.get("num_dropped") or {}
        return EpisodeReport(
            path=path, instruction=instruction, rows=report, recorder_dropped=sum(lost.values())
        )

    def _write(
        self,
        frames: Mapping[str, NDArray[np.uint8]],
        recording: Recording,
        rows: Rows,
        instruction: str,
        contract: RobotContract,
    ) -> None:
        """Append one episode; the data set is made with the first, so a refused one leaves none."""
        if self._writer is None:
            self._writer = self._open(contract)
        first = next(iter(rows.frame_s))
        self._writer.add_episode(
            frames,
            instruction=instruction,
            actions=rows.actions,
            states=None if self._limits.accept_unconfirmed else rows.states,
            extra={fmt.CAPTURE_TIME: rows.frame_s[first], COMMAND_TIME: rows.command_s},
            source=recording.path.name,
        )

    def _open(self, contract: RobotContract) -> LeRobotWriter:
        rate_hz = contract.control_rate_hz
        if rate_hz != int(rate_hz):
            raise DataError(
                f"the contract's control rate is {rate_hz} Hz; LeRobot v3 allows whole numbers only"
            )
        features = fmt.make_features(
            {name: (c.height_px, c.width_px) for name, c in contract.cameras.items()},
            action_names=ACTION_NAMES,
            state_names=None if self._limits.accept_unconfirmed else fmt.STATE_NAMES,
            extra={fmt.CAPTURE_TIME: ("float64", 1), COMMAND_TIME: ("float64", 1)},
        )
        metadata: dict[str, Any] = {
            "contract_name": contract.name,
            "contract_hash": contract.hash,
            "action_names": list(ACTION_NAMES),
            "action_kind": "commanded end-effector delta, confirmed as applied by the arm"
            if not self._limits.accept_unconfirmed
            else "commanded end-effector delta, not confirmed",
            fmt.PROVENANCE: provenance(),
        }
        return LeRobotWriter(
            self._out,
            fps=int(rate_hz),
            features=features,
            robot_type=contract.robot_model,
            metadata=metadata,
            quality=self._quality,
        )


def _frames(
    recording: Recording, rows: Rows, topics: Mapping[str, str], contract: RobotContract
) -> dict[str, NDArray[np.uint8]]:
    """Decode the chosen frames of every camera, (T, H, W, 3) each."""
    frames: dict[str, NDArray[np.uint8]] = {}
    for name, topic in topics.items():
        chosen = rows.frame_index[name].tolist()
        pictures = read_pictures(recording.path, topic, chosen)
        shapes = sorted({picture.shape for picture in pictures.values()})
        camera = contract.cameras[name]
        if shapes != [(camera.height_px, camera.width_px, 3)]:
            raise DataError(
                f"camera {name} has pictures of shape {shapes}; the contract says "
                f"{camera.height_px} x {camera.width_px}"
            )
        frames[name] = np.stack([pictures[i] for i in chosen])
    return frames


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


def _topic(recording: Recording, base: str) -> str:
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
