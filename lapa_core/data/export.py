# SPDX-License-Identifier: Apache-2.0
"""Turn a folder of recorded MCAP episodes into a LeRobot v3 data set, with a report on every one.

The recordings stay what they are; an export can be repeated with other limits. Running it again after
new recordings adds only those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.checkpoint import provenance
from lapa_core.data import lerobot_format as fmt
from lapa_core.data.curation import Mark
from lapa_core.data.judge import RECORDING, EpisodeReport, judge, list_marked
from lapa_core.data.lerobot import LeRobotSource, LeRobotWriter
from lapa_core.data.mcap_episode import Recording, read_pictures
from lapa_core.data.recorded_rows import RowLimits, RowReport, Rows, achieved_rows
from lapa_core.data.video import VideoQuality
from lapa_core.errors import DataError
from lapa_core.robot.contract import RobotContract, load_contract

COMMAND_TIME = "command_time"
"""Feature that holds the stamp of each delta [s]."""
_PART = ", "
"""Between the name of a recording and the part of it that was kept."""
ActionKind = Literal["commanded", "achieved"]


def export_recordings(
    recordings: str | Path,
    out: str | Path,
    *,
    contract: str = "",
    outcomes: Sequence[str] = ("success",),
    limits: RowLimits | None = None,
    actions: ActionKind = "commanded",
    quality: VideoQuality | None = None,
    on_report: Callable[[EpisodeReport], None] = lambda report: None,
) -> list[EpisodeReport]:
    """Export every `.mcap` file under a folder, in order of its name, as far as `curation.jsonl` keeps it.

    An unfinished `.mcap.part` is refused: its recorder still runs, or was killed and `recover` can
    rescue it.

    Args:
        recordings: folder of the recordings.
        out: folder of the data set; an existing one is continued.
        contract: name or path of the robot contract; empty takes the name in the first recording.
        outcomes: outcomes that are exported; empty takes every one.
        limits: what an episode must satisfy.
        actions: `commanded` deltas, as the arm applied them, or what it `achieved` from row to row.
        quality: video compression.
        on_report: called after each recording.

    Returns:
        One report per recording; refused ones are not in the data set.

    Raises:
        DataError: there is no recording, none could be exported, or a reviewer's decision would be lost.
        ContractError: the contract does not exist.
    """
    folder = Path(recordings)
    marked = list_marked(folder)
    exporter = _Exporter(
        Path(out), contract, tuple(outcomes), limits or RowLimits(), actions, quality
    )
    reports = []
    for path, mark in marked:
        reports.append(exporter.add(path, mark))
        on_report(reports[-1])
    if not any(report.accepted for report in reports):
        raise DataError(
            f"none of {len(marked)} recordings could be exported; the first: {reports[0].line()}"
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
        actions: ActionKind,
        quality: VideoQuality | None,
    ) -> None:
        self._out, self._outcomes, self._limits = out, outcomes, limits
        self._actions, self._quality = actions, quality
        self._contract = load_contract(contract) if contract else None
        self._writer: LeRobotWriter | None = None
        self._known: dict[str, str] = {}
        if (out / fmt.INFO_PATH).is_file():
            source = LeRobotSource(out)
            origins = [source.origin(index) for index in range(len(source))]
            self._known = {_recording_of(origin): origin for origin in origins}

    def add(self, path: Path, mark: Mark | None) -> EpisodeReport:
        """Export one recording, or say why not."""
        if path.name in self._known:
            return self._again(path, mark)
        judged = judge(
            path, contract=self._contract, outcomes=self._outcomes, limits=self._limits, mark=mark
        )
        report, recording, rows = judged.report, judged.recording, judged.rows
        self._contract = self._contract or judged.contract
        if recording is None or rows is None or judged.contract is None:
            return report
        try:
            if self._actions == "achieved":
                rows = achieved_rows(rows)
            frames = _frames(recording, rows, judged.topics, judged.contract)
        except DataError as error:
            return replace(report, rows=replace(report.rows, refusals=(str(error),)))
        self._write(frames, _origin(path, mark), rows, report.instruction, judged.contract)
        return replace(report, rows=replace(report.rows, rows=len(rows.actions)))

    def _again(self, path: Path, mark: Mark | None) -> EpisodeReport:
        """Report a recording that the data set holds already: a data set takes nothing back."""
        held = self._known[path.name]
        if held == _origin(path, mark) and (mark is None or mark.keep):
            return EpisodeReport(path=path, rows=RowReport(), known=True)
        reason = f"the data set holds it as {held!r}, a reviewer has decided otherwise since; export to a new folder"
        return EpisodeReport(path=path, rows=RowReport(refusals=(reason,)))

    def _write(
        self,
        frames: Mapping[str, NDArray[np.uint8]],
        origin: str,
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
            source=origin,
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
            "action_kind": self._action_kind(),
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

    def _action_kind(self) -> str:
        if self._actions == "achieved":
            return "achieved end-effector delta, from one measured pose to the next"
        if self._limits.accept_unconfirmed:
            return "commanded end-effector delta, not confirmed"
        return "commanded end-effector delta, confirmed as applied by the arm"


def _origin(path: Path, mark: Mark | None) -> str:
    """Name an episode in the data set: the recording, and the part of it that a reviewer kept."""
    if mark is None or not mark.trims:
        return path.name
    return f"{path.name}{_PART}{mark.first_s:g} to {'its end' if mark.last_s is None else f'{mark.last_s:g}'} s"


def _recording_of(origin: str) -> str:
    name, suffix, _ = origin.rpartition(RECORDING)
    return name + suffix


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
