# SPDX-License-Identifier: Apache-2.0
"""`lapa data info | import | export`: configs, and what each prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import Literal

from lapa_core.data.convert import import_source
from lapa_core.data.describe import describe
from lapa_core.data.export import ActionKind, export_recordings
from lapa_core.data.mcap_episode import recover
from lapa_core.data.recorded_rows import RowLimits
from lapa_core.data.video import VideoQuality


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """Say what a data set holds."""

    path: Path
    """LeRobot v3, RLDS, videos, sub-folders of frames, or MCAP recordings."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Turn an RLDS data set, HDF5 files, or a folder of videos, frames or recordings, into a LeRobot v3 data set."""

    source: Path
    """RLDS data set, HDF5 of robomimic, LIBERO or ALOHA, or folder of videos, of sub-folders of frames (with a
    frames.json), or of MCAP files."""
    out: Path
    """Folder of the new data set; an existing one is continued."""
    cameras: tuple[str, ...] = ()
    """Cameras to take; none takes the first."""
    fps: int | None = None
    """Frames per second of the data set; None keeps the source's, which must be whole and one for all."""
    image_px: int | None = None
    """Side of the square frames to store [px]; None keeps the source's size."""
    arm: Literal["left", "right"] = "right"
    """Which arm of ALOHA's two."""
    quality: VideoQuality = field(default_factory=VideoQuality)
    """Video compression."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Turn recorded MCAP episodes into a LeRobot v3 data set."""

    recordings: Path
    """Folder that the recorder wrote to."""
    out: Path
    """Folder of the data set; an existing one is continued with what is new."""
    recover: bool = False
    """Rescue unfinished .mcap.part files first. Only while no recorder writes there."""
    contract: str = ""
    """Robot contract, a name or a path; empty takes the one that the recordings name."""
    outcomes: tuple[str, ...] = ("success",)
    """Outcomes that are exported; none exports every one."""
    limits: RowLimits = field(default_factory=RowLimits)
    """What an episode must satisfy."""
    actions: ActionKind = "commanded"
    """Deltas as the arm applied them, or what it achieved from one measured pose to the next: for data sets whose
    rows are blocking moves. Both need a recorded arm_state."""
    quality: VideoQuality = field(default_factory=VideoQuality)
    """Video compression."""


@singledispatch
def main(config: object) -> None:
    """Run the verb whose config is given."""
    raise TypeError(f"{type(config).__name__} is no config of `lapa data`")


@main.register
def _(config: InfoConfig) -> None:
    for line in describe(config.path):
        print(line)


@main.register
def _(config: ImportConfig) -> None:
    report = import_source(
        config.source,
        config.out,
        cameras=config.cameras,
        fps=config.fps,
        image_px=config.image_px,
        arm=config.arm,
        quality=config.quality,
        progress=True,
    )
    for refusal in report.refusals:
        print(f"REFUSED: {refusal}")
    print(
        f"{config.out}: {report.num_episodes} episodes ({report.num_frames} frames) imported, "
        f"{report.num_known} were there before, {len(report.refusals)} refused"
    )


@main.register
def _(config: ExportConfig) -> None:
    for part in sorted(config.recordings.rglob("*.mcap.part")) if config.recover else ():
        print(f"recovered {recover(part)}")
    reports = export_recordings(
        config.recordings,
        config.out,
        contract=config.contract,
        outcomes=config.outcomes,
        limits=config.limits,
        actions=config.actions,
        quality=config.quality,
        on_report=lambda report: print(report.line()),
    )
    refused = sum(not report.accepted for report in reports)
    known = sum(report.known for report in reports)
    rows = sum(report.rows.rows for report in reports if report.accepted)
    print(
        f"{config.out}: {len(reports) - refused - known} episodes ({rows} rows) exported, {known} "
        f"were there before, {refused} refused"
    )
    holed = [report.rows for report in reports if report.accepted and report.rows.dropped]
    if holed:
        left_out = sum(row.dropped + row.parted for row in holed)
        print(
            f"{left_out} of {left_out + sum(row.rows for row in holed)} applied deltas were left out, of {len(holed)} "
            "episodes: some have no fresh frame or pose, the others lie beyond those"
        )
