# SPDX-License-Identifier: Apache-2.0
"""Scan one item of a data folder: the clips in it, and what cannot be read with the reason.

Nothing is decoded, except the first picture of an RLDS record (a camera that was not there is black) and, when
motion is asked for, some frames. Imports numpy, av or mcap by kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.clip import Clip
from lapa_core.data.clip_frames import make_request, read_request
from lapa_core.data.content_hash import hash_bytes, hash_file, hash_texts
from lapa_core.data.frame_folders import list_pictures, read_size
from lapa_core.data.mcap_episode import read_picture_topics
from lapa_core.data.mcap_source import choose_topic
from lapa_core.data.rlds import describe_record, list_records
from lapa_core.data.scaled_video import SquareScaler
from lapa_core.data.scan_items import EpisodePlace, ScanItem
from lapa_core.data.table_pictures import check_episode
from lapa_core.data.video import PacketTable, read_packets
from lapa_core.errors import DataError

_NO_KEYFRAMES = np.zeros(0, dtype=np.int32)
_TABLE_SUFFIX = ".parquet"
_MOTION_PX = 32
_MOTION_FRAMES = 64
"""At most so many frames of a clip are decoded to measure its motion."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanResult:
    """What is in one item."""

    path: str
    """The item."""
    stamp: list[int]
    """Its sizes and times of change when it was scanned."""
    clips: list[Clip] = field(default_factory=list)
    """What can be read, numbered from 0 within the item."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(clip or file, reason) of what cannot."""


def scan_item(item: ScanItem) -> ScanResult:
    """Look at one file or folder; trouble with it is a result, not an error."""
    clips: list[Clip] = []
    unreadable: list[tuple[str, str]] = []
    stamp: list[int] = []
    try:
        stamp = item.stamp()
        if item.kind != "frames" and not stamp[1]:
            raise DataError(f"{item.place} has no bytes; copy it again")
        for found in _SCANNERS[item.kind](item):
            if isinstance(found, Clip):
                clips.append(found)
            else:
                unreadable.append(found)
    except (DataError, OSError) as error:
        return ScanResult(path=item.path, stamp=stamp, unreadable=[(item.path, str(error))])
    if item.motion:
        clips, still = _with_motion(item, clips)
        unreadable += still
    return ScanResult(path=item.path, stamp=stamp, clips=clips, unreadable=unreadable)


Found = Iterator[Clip | tuple[str, str]]


def _scan_video(item: ScanItem) -> Found:
    packets = read_packets(item.place)
    if len(packets.pts) < 2:
        raise DataError(f"{item.place} has one frame; a video of at least two is needed")
    yield _clip(item, item.path, "", packets, packets.pts, hash_file(item.place))


def _scan_lerobot(item: ScanItem) -> Found:
    stored = not item.path.endswith(_TABLE_SUFFIX)
    file_hash = hash_file(item.place)
    packets = read_packets(item.place) if stored else None
    for place in item.episodes:
        name = f"{item.path}#{place.index:06d}"
        assert item.fps is not None
        if packets is None:
            table = _regular(place.frames, item.fps)
            pts = table.pts
        else:
            table, pts = packets, _episode_pts(packets, place, item.fps)
        problem = _episode_problem(place, pts, table, item.fps)
        if problem:
            yield name, f"{item.place}: {problem}; run `lapa data doctor`"
            continue
        assert item.camera is not None
        try:
            if not stored:
                check_episode(item.place, place.index, item.camera, place.frames)
        except DataError as error:
            yield name, str(error)
            continue
        content = hash_texts([file_hash, str(pts[0]), str(pts[-1]), "" if stored else name])
        address = str(place.index) if stored else f"{place.index}:{item.camera}"
        yield _clip(item, name, address, table, pts, content)


def _episode_pts(packets: PacketTable, place: EpisodePlace, fps: float) -> NDArray[np.int64]:
    times_s, half_s = packets.times_s, 0.5 / fps
    inside = (times_s >= place.start_s - half_s) & (
        times_s < place.start_s + place.frames / fps - half_s
    )
    return packets.pts[inside]


def _episode_problem(
    place: EpisodePlace, pts: NDArray[np.int64], table: PacketTable, fps: float
) -> str:
    if len(pts) != place.frames:
        return f"{len(pts)} of the {place.frames} frames of episode {place.index} from {place.start_s:.3f} s on"
    if len(pts) < 2:
        return f"episode {place.index} has {len(pts)} frames; at least two are needed"
    times_s = (pts - pts[0]) * float(table.time_base)
    if np.abs(times_s - np.arange(len(pts)) / fps).max() > 0.25 / fps:
        return f"the frames of episode {place.index} are not {fps:g} a second"
    return ""


def _scan_frames(item: ScanItem) -> Found:
    pictures = list_pictures(item.place)
    if len(pictures) < 2:
        raise DataError(f"{item.place} has {len(pictures)} pictures; at least two are needed")
    sizes = sorted({read_size(path) for path in pictures})
    if len(sizes) > 1:
        raise DataError(f"{item.place}: pictures have sizes {sizes}; one size is needed")
    content = hash_texts(hash_file(path) for path in pictures)
    assert item.fps is not None
    table = _regular(len(pictures), item.fps)
    yield _clip(item, item.path, "", table, table.pts, content)


def _scan_rlds(item: ScanItem) -> Found:
    assert item.fps is not None
    assert item.camera is not None
    for number, place in enumerate(list_records(item.place, item.records)):
        name = f"{item.path}#{number:05d}"
        try:
            data = place.read()
            key, frames, instruction = describe_record(data, item.camera, name)
            if frames < 2:
                raise DataError(f"{item.place}: record {number} has one frame; two are needed")
        except DataError as error:
            yield name, str(error)
            continue
        table = _regular(frames, item.fps)
        address = f"{place.offset}:{place.length}:{key}"
        yield _clip(item, name, address, table, table.pts, hash_bytes(data), instruction)


def _scan_mcap(item: ScanItem) -> Found:
    topics = read_picture_topics(item.place)
    topic, times_s = choose_topic(topics, item.camera)
    nanoseconds = np.round(times_s * 1e9).astype(np.int64)
    table = PacketTable(pts=nanoseconds, time_base=Fraction(1, 10**9), keyframes=_NO_KEYFRAMES)
    content = hash_file(item.place)
    yield _clip(item, item.path, topic, table, table.pts, content, topics.instruction)


_SCANNERS = {
    "video": _scan_video, "lerobot": _scan_lerobot, "frames": _scan_frames, "rlds": _scan_rlds,
    "mcap": _scan_mcap,
}  # fmt: skip


def _regular(frames: int, fps: float) -> PacketTable:
    """Return the times of frames at a constant rate, in ticks of a microsecond."""
    ticks = np.round(np.arange(frames) * (1e6 / fps)).astype(np.int64)
    return PacketTable(pts=ticks, time_base=Fraction(1, 10**6), keyframes=_NO_KEYFRAMES)


def _clip(
    item: ScanItem,
    name: str,
    address: str,
    table: PacketTable,
    pts: NDArray[np.int64],
    content: str,
    instruction: str = "",
) -> Clip:
    """Make the clip whose frames have the times `pts` of a file's table; `instruction` is what the file says."""
    first = int(np.searchsorted(table.pts, pts[0]))
    keyframes = table.keyframes - first
    whole_s = float((pts[-1] - pts[0]) * table.time_base)
    in_tables = item.kind == "lerobot" and item.path.endswith(_TABLE_SUFFIX)
    return Clip(
        number=0,
        id=name,
        kind=item.kind,
        path=item.path,
        address=address,
        stored=item.kind in ("video", "lerobot") and not in_tables,
        size_bytes=item.stamp()[1],
        hash=content,
        fps=(len(pts) - 1) / whole_s,
        instruction=instruction,
        motion=None,
        time_base=table.time_base,
        pts=pts,
        keyframes=keyframes[(keyframes >= 0) & (keyframes < len(pts))].astype(np.int32),
    )


def _with_motion(item: ScanItem, clips: list[Clip]) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Return the clips with their motion, and those whose frames cannot be decoded."""
    moved, unreadable = [], []
    for clip in clips:
        try:
            moved.append(replace(clip, motion=_motion(item, clip)))
        except (DataError, OSError) as error:
            unreadable.append((clip.id, str(error)))
    return moved, unreadable


def _motion(item: ScanItem, clip: Clip) -> float:
    """Return `Clip.motion`, from evenly spaced frames."""
    count = int(np.clip(clip.duration_s + 1, 2, _MOTION_FRAMES))
    numbers = np.unique(np.linspace(0, len(clip) - 1, count).astype(np.int64))
    thumbs = np.empty((len(numbers), _MOTION_PX, _MOTION_PX, 3), np.uint8)
    request = make_request(item.root, clip, numbers)
    read_request(request, SquareScaler(_MOTION_PX), thumbs)
    return float(np.abs(np.diff(thumbs.astype(np.float32), axis=0)).mean())
