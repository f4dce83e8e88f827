# SPDX-License-Identifier: Apache-2.0
"""What a scan of a data folder has to look at: one item per file or folder of frames. Reads metadata only."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lapa_core.data import lerobot_format as fmt
from lapa_core.data.episode import OnePathEach, open_source
from lapa_core.data.frame_folders import FRAMES_NAME, PICTURE_SUFFIXES, list_pictures, read_rate
from lapa_core.data.instructions import INSTRUCTIONS_NAME, read_instructions
from lapa_core.data.lerobot_reader import LeRobotSource
from lapa_core.data.rlds import RldsSet, find_rlds
from lapa_core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class EpisodePlace:
    """An episode of a LeRobot data set within a file."""

    index: int
    """Episode number."""
    start_s: float
    """Time of its first frame in the video [s]; 0 where pictures lie in the tables."""
    frames: int
    """How many frames the tables promise."""
    instruction: str
    """What happens."""


@dataclass(frozen=True, kw_only=True)
class ScanItem:
    """One file, or one folder of frames, that is scanned in one go."""

    root: Path
    """Data folder."""
    path: str
    """The file or folder, relative to `root`; names the item."""
    kind: str
    """One of `lapa_core.data.clip.KINDS`."""
    fps: float | None = None
    """Frames per second, where the file does not say it."""
    camera: str | None = None
    """Chosen camera: a feature (lerobot, rlds) or a part of a topic (mcap)."""
    records: int = 0
    """Records that an RLDS shard must hold."""
    episodes: tuple[EpisodePlace, ...] = ()
    """Episodes of a LeRobot file."""
    instruction: str = ""
    """Text of the clip, from `instructions.jsonl`."""
    motion: bool = False
    """Whether to measure how much moves."""

    @property
    def place(self) -> Path:
        """Where it is now."""
        return self.root / self.path

    def stamp(self) -> list[int]:
        """Return what tells whether the item must be scanned again: sizes, times of change, and what is said of it.

        Raises:
            OSError: the file is gone.
        """
        files = list_pictures(self.place) if self.kind == "frames" else [self.place]
        states = [path.stat() for path in files]
        newest = max((state.st_mtime_ns for state in states), default=0)
        places = [(place.index, place.start_s, place.frames) for place in self.episodes]
        said = zlib.crc32(repr((self.fps, self.records, places)).encode())
        return [len(states), sum(state.st_size for state in states), newest, said]


def stamp_of(item: ScanItem) -> list[int]:
    """Return the stamp of an item, or nothing when its file is gone."""
    try:
        return item.stamp()
    except OSError:
        return []


def list_items(
    root: Path,
    *,
    camera: str | None = None,
    fps: float | None = None,
    instructions: Path | None = None,
    motion: bool = False,
) -> list[ScanItem]:
    """Return the items of a data folder in a fixed order.

    Args:
        root: data folder of any kind that `open_source` reads.
        camera: camera of data sets with several; None takes the first.
        fps: rate of what does not say it itself.
        instructions: file of instructions instead of the folder's own `instructions.jsonl`.
        motion: measure motion when scanning.

    Raises:
        DataError: no data set, its metadata is damaged, or it has no use for an argument.
    """
    tfds = find_rlds(root)
    if tfds is not None and not (root / fmt.INFO_PATH).is_file():
        _refuse("an RLDS data set", instructions=instructions)
        return _rlds_items(root, RldsSet(tfds, camera=camera, fps=fps), motion)
    source = open_source(root, camera=camera, fps=fps)
    if isinstance(source, LeRobotSource):
        _refuse("a LeRobot data set", instructions=instructions, fps=fps)
        return _lerobot_items(root, source, motion)
    if not isinstance(source, OnePathEach):
        raise DataError(f"{source.path}: a {type(source).__name__} cannot be indexed")
    kind, names = source.KIND, source.origins()
    if kind != "frames":
        _refuse(f"a folder of {kind} files", fps=fps)
    if kind != "mcap":
        _refuse(f"a folder of {kind}", camera=camera)
    texts = read_instructions(root, set(names), instructions)
    rates = [read_rate(root, path, fps) if kind == "frames" else None for path in source.paths]
    return [
        ScanItem(
            root=root, path=name, kind=kind, fps=rate, camera=camera, instruction=texts.get(name, ""), motion=motion
        )
        for name, rate in zip(names, rates, strict=True)
    ]  # fmt: skip


def count_not_read(root: Path, items: list[ScanItem], out: Path) -> dict[str, int]:
    """Return how many files of each suffix lie in a folder and are no item, nor part of one, nor below `out`.

    The files of data sets (LeRobot, RLDS) have their places; only folders that are searched are looked at.
    """
    if {item.kind for item in items} & {"lerobot", "rlds"}:
        return {}
    places = {item.place for item in items}
    counts: Counter[str] = Counter()
    for path in root.rglob("*"):
        a_picture = path.parent in places and path.suffix.lower() in PICTURE_SUFFIXES
        said = path.name in (FRAMES_NAME, INSTRUCTIONS_NAME) or path.name.startswith(".")
        if not (path in places or a_picture or said or out in path.parents or path.is_dir()):
            counts[path.suffix.lower() or path.name] += 1
    return dict(sorted(counts.items()))


def _refuse(what: str, **given: object) -> None:
    """Refuse arguments that would not change anything."""
    unused = {name: value for name, value in given.items() if value is not None}
    if unused:
        raise DataError(
            f"{' and '.join(unused)} given, but {what} says that itself or has none; leave it out"
        )


def _rlds_items(root: Path, data: RldsSet, motion: bool) -> list[ScanItem]:
    return [
        ScanItem(
            root=root, path=shard.relative_to(root).as_posix(), kind="rlds", fps=data.fps, camera=data.camera,
            records=length, motion=motion,
        )
        for shard, length in data.shards
    ]  # fmt: skip


def _lerobot_items(root: Path, source: LeRobotSource, motion: bool) -> list[ScanItem]:
    """Return an item per video file of the camera, or per table where pictures lie in the tables."""
    stored = source.features[source.camera]["dtype"] == "video"
    groups: dict[str, list[EpisodePlace]] = {}
    for index in range(len(source)):
        path = source.video_path(index, source.camera) if stored else source.data_path(index)
        place = EpisodePlace(
            index=index,
            start_s=source.video_start_s(index) if stored else 0.0,
            frames=source.length(index),
            instruction=source.instruction(index),
        )
        groups.setdefault(path.relative_to(root).as_posix(), []).append(place)
    return [
        ScanItem(
            root=root, path=path, kind="lerobot", fps=source.fps, camera=source.camera, episodes=tuple(places),
            motion=motion,
        )
        for path, places in groups.items()
    ]  # fmt: skip
