# SPDX-License-Identifier: Apache-2.0
"""`lapa data doctor`: every fault of a folder of recordings, or of a LeRobot v3 data set, before it is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from lapa_core.data import lerobot_format as fmt
from lapa_core.data.judge import EpisodeReport, judge, list_marked
from lapa_core.data.recorded_rows import RowLimits
from lapa_core.data.verify import verify
from lapa_core.errors import DataError
from lapa_core.robot.contract import load_contract


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check every byte of a folder of MCAP recordings, or every row, video and index of a LeRobot v3 data set."""

    path: Path
    """Folder of the recordings, or of the data set."""
    decode: bool = True
    """Data set: decode every frame; without it only the times in the packets are compared."""
    contract: str = ""
    """Recordings: robot contract, a name or a path; empty takes the one that the first recording names."""
    outcomes: tuple[str, ...] = ()
    """Recordings: outcomes that count as sound; none accepts every one."""
    limits: RowLimits = field(default_factory=RowLimits)
    """Recordings: what an episode must satisfy."""


def examine(
    config: DoctorConfig, on_report: Callable[[EpisodeReport], None] = lambda report: None
) -> list[EpisodeReport]:
    """Judge every recording of a folder, in order of its path; those that a reviewer dropped are passed over.

    Raises:
        DataError: there is no recording, or `curation.jsonl` is malformed or a decision of it would be lost.
    """
    marked = list_marked(config.path)
    contract = load_contract(config.contract) if config.contract else None
    reports = []
    for path, mark in tqdm(marked, desc="examining", unit="episode"):
        if mark is not None and not mark.keep:
            continue
        judged = judge(
            path, contract=contract, outcomes=config.outcomes, limits=config.limits, mark=mark
        )
        contract = contract or judged.contract  # as the export does: one data set has one
        reports.append(judged.report)
        on_report(judged.report)
    return reports


def main(config: DoctorConfig) -> None:
    """Print the findings.

    Raises:
        DataError: something is wrong; the message counts it.
    """
    if (config.path / fmt.INFO_PATH).is_file():
        sound = verify(config.path, decode=config.decode, progress=True)
        sound.raise_on_problem()
        print(
            f"{config.path}: sound; {sound.num_episodes} episodes, {sound.num_frames} rows, "
            f"{sound.num_videos} videos"
        )
        return
    reports = examine(config, lambda report: tqdm.write(report.line()))
    if not reports:
        raise DataError(
            f"a reviewer dropped every recording of {config.path}; keep one in `lapa data review`, or record more"
        )
    bad = [report for report in reports if not report.accepted]
    if bad:
        raise DataError(
            f"{len(bad)} of {len(reports)} recordings of {config.path} would not be exported; drop or trim them in "
            "`lapa data review`, or record them again"
        )
    rows = sum(report.rows.rows for report in reports)
    tasks = Counter(report.instruction for report in reports)
    print(
        f"{config.path}: sound; {len(reports)} recordings, {rows} rows, {len(tasks)} instructions"
    )
