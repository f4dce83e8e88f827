# SPDX-License-Identifier: Apache-2.0
"""Check a LeRobot v3 data set against itself: every count, index, time, number and frame.

The format's own loader lets many faults pass in silence: a video offset by one frame, a wrong rate, a
short index range, NaN actions. Here each table is compared with the next and with what the videos
really hold. Nothing is changed, and one fault does not hide the others.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from lapa_core.data import lerobot_format as fmt
from lapa_core.data.verify_rows import check_rows
from lapa_core.data.verify_video import Span, check_video
from lapa_core.errors import DataError

_MAX_SHOWN = 50
_EPISODE_COLUMNS = (
    "episode_index",
    "tasks",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "dataset_to_index",
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `verify` found."""

    path: Path
    """The data set."""
    num_episodes: int = 0
    """Episodes that were checked."""
    num_frames: int = 0
    """Rows that were checked."""
    num_videos: int = 0
    """Video files that were checked."""
    problems: tuple[str, ...] = ()
    """Every fault, a sentence each; empty when the data set is sound."""

    def raise_on_problem(self) -> None:
        """Raise DataError that lists the problems, if there are any."""
        if self.problems:
            shown = "\n  ".join(self.problems[:_MAX_SHOWN])
            more = len(self.problems) - _MAX_SHOWN
            tail = f"\n  and {more} more" if more > 0 else ""
            raise DataError(f"{self.path} has {len(self.problems)} problems:\n  {shown}{tail}")


def verify(path: str | Path, *, decode: bool = True, progress: bool = False) -> Report:
    """Check a data set.

    Args:
        path: folder of the data set.
        decode: decode every frame and picture; False compares the times in the packets only, much faster.
        progress: show a progress bar over the videos.

    Returns:
        The report; it does not raise on faults of the data set, see `Report.raise_on_problem`.

    Raises:
        DataError: the folder holds no data set at all.
    """
    path = Path(path)
    if not (path / fmt.INFO_PATH).is_file():
        raise DataError(f"{path} has no {fmt.INFO_PATH}; give the folder of a LeRobot v3 data set")
    checker = _Checker(path, decode, progress)
    try:
        checker.run()
    except DataError as error:  # a file that the rest depends on: nothing further can be said
        checker.problems.append(str(error))
    return Report(
        path=path,
        num_episodes=len(checker.episodes),
        num_frames=checker.num_frames,
        num_videos=checker.num_videos,
        problems=tuple(checker.problems),
    )


class _Checker:
    """Collects problems while it walks from info.json to the videos."""

    def __init__(self, path: Path, decode: bool, progress: bool) -> None:
        self.path, self.decode, self.progress = path, decode, progress
        self.problems: list[str] = []
        self.info: dict[str, Any] = {}
        self.features: fmt.Features = {}
        self.tasks: list[str] = []
        self.episodes: list[dict[str, Any]] = []
        self.num_frames = self.num_videos = 0

    def run(self) -> None:
        self.info = fmt.read_info(self.path)
        self.features = self.info["features"]
        self._check_info()
        self._check_tasks()
        self._check_episodes()
        rows = check_rows(self.path, self.info, self.tasks, self.episodes, decode=self.decode)
        self.problems += rows.problems
        self.num_frames = rows.num_rows
        self._check_videos()
        for leftover in sorted(self.path.rglob("*.tmp")):
            self._say(f"{leftover.relative_to(self.path)} is left of a killed writer: open the set "
                      "with LeRobotWriter, or delete the file")  # fmt: skip

    def _say(self, sentence: str) -> None:
        self.problems.append(sentence)

    def _check_info(self) -> None:
        fps = self.info["fps"]
        if fps != int(fps):
            self._say(f"info.json: fps is {fps}; a whole number is needed")
        for name, feature in fmt.AUTO_FEATURES.items():
            found = self.features.get(name)
            if found is None or found.get("dtype") != feature["dtype"]:
                self._say(
                    f"info.json: feature {name} is {found}; dtype {feature['dtype']} is needed"
                )
        for name, feature in self.features.items():
            numeric = feature["dtype"] not in fmt.NOT_NUMBERS
            if "/" in name or ("image" in name and numeric):
                self._say(f"info.json: feature name {name!r} breaks the format's tools: rename it")
            said = feature.get("info")
            rate = said.get("video.fps", fps) if isinstance(said, dict) else fps
            if feature["dtype"] == "video" and rate != fps:
                self._say(f"info.json: {name} says {rate} fps, the set {fps}")

    def _check_tasks(self) -> None:
        file = self.path / fmt.TASKS_PATH
        if not self.info["total_episodes"] and not file.exists():
            return
        self.tasks = fmt.read_tasks(file)
        metadata = (pq.read_schema(file).metadata or {}).get(b"pandas", b"{}")
        indices = fmt.parse_json(metadata).get("index_columns", [])
        names = [n for n in pq.read_schema(file).names if n != "task_index"]
        if indices != names:
            self._say(
                f"{fmt.TASKS_PATH}: the text is not the pandas index ({indices}), so the format's own "
                "loader takes row numbers for instructions: write the file again"
            )
        if len(set(self.tasks)) != len(self.tasks):
            self._say(f"{fmt.TASKS_PATH}: an instruction occurs twice")
        if self.info.get("total_tasks") not in (None, len(self.tasks)):
            self._say(
                f"info.json: total_tasks is {self.info['total_tasks']}; {len(self.tasks)} exist"
            )

    def _check_episodes(self) -> None:
        rows: list[dict[str, Any]] = []
        for file in sorted(self.path.glob(fmt.EPISODES_GLOB)):
            table = fmt.read_parquet(file)
            missing = [c for c in _EPISODE_COLUMNS if c not in table.column_names]
            if missing:
                raise DataError(f"{file} lacks the columns {missing}; write the set again")
            rows += table.to_pylist()
        total = self.info["total_episodes"]
        indices = [row["episode_index"] for row in rows]
        if indices != list(range(total)):
            self._say(
                f"meta/episodes holds episodes {_ranges(indices)}; info.json counts {total}, and the "
                "format reads them by position: write them again"
            )
        self.episodes = [row for row in rows if row["episode_index"] < total]
        expected = 0
        for row in self.episodes:
            start, stop, length = (
                row["dataset_from_index"],
                row["dataset_to_index"],
                row["length"],
            )
            if (start, stop) != (expected, expected + length):
                self._say(
                    f"episode {row['episode_index']}: rows {start} to {stop} for {length} frames; "
                    f"{expected} to {expected + length} are needed"
                )
            expected += length
            unknown = [text for text in row["tasks"] if text not in self.tasks]
            if unknown or not row["tasks"]:
                self._say(f"episode {row['episode_index']}: instruction {unknown} is not in tasks")
        if expected != self.info["total_frames"]:
            self._say(
                f"info.json: total_frames is {self.info['total_frames']}; episodes have {expected}"
            )

    def _check_videos(self) -> None:
        template = self.info.get("video_path") or ""
        cameras = [n for n, f in self.features.items() if f["dtype"] == "video"]
        if cameras and not template:
            self._say("info.json: video_path is missing, though features name videos")
            return
        for camera in cameras:
            spans: dict[Path, list[Span]] = defaultdict(list)
            for row in self.episodes:
                try:
                    file, span = _span(row, camera, template)
                except KeyError as error:
                    self._say(f"episode {row['episode_index']} has no column {error} for its video")
                    continue
                spans[self.path / file].append(span)
            folder = self.path / template.split("{video_key}")[0] / camera
            for stray in sorted(set(folder.rglob("*.mp4")) - set(spans)):
                self._say(f"{stray.relative_to(self.path)} belongs to no episode")
            size_px = fmt.picture_size(self.features[camera]["shape"])
            for file in tqdm(sorted(spans), desc=camera, unit="video", disable=not self.progress):
                self.num_videos += 1
                for problem in check_video(
                    file, spans[file], float(self.info["fps"]), size_px, self.decode
                ):
                    self._say(f"{file.relative_to(self.path)}: {problem}")


def _span(row: dict[str, Any], camera: str, template: str) -> tuple[str, Span]:
    prefix = f"videos/{camera}"
    file = template.format(
        video_key=camera,
        chunk_index=row[f"{prefix}/chunk_index"],
        file_index=row[f"{prefix}/file_index"],
    )
    return file, Span(
        episode=row["episode_index"],
        start_s=row[f"{prefix}/from_timestamp"],
        stop_s=row[f"{prefix}/to_timestamp"],
        length=row["length"],
        sha256=row.get(f"lapa/sha256/{camera}"),
    )


def _ranges(indices: list[int]) -> str:
    """Say a list of numbers briefly: its first ones where it is long."""
    return f"{indices[:6]} ... {indices[-1]}" if len(indices) > 8 else str(indices)
