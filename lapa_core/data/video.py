# SPDX-License-Identifier: Apache-2.0
"""Encode and decode video files with PyAV, by presentation time, never by frame number.

A wrong frame is worse than none, so a file that is cut short or damaged is refused: the packet
table, the container's own length and the decoded frames must agree. Imports numpy and av.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from lapa_core.errors import DataError
from lapa_core.paths import sync


@dataclass(frozen=True, kw_only=True)
class VideoQuality:
    """How frames are compressed; the default is near lossless, since policies look at 64 px."""

    crf: int = 14
    """x264 constant rate factor: 0 is lossless, 18 is already hard to see, 51 is worst."""
    group_of_pictures: int = 2
    """Frames from one key frame to the next; short groups make random access cheap."""
    preset: str = "veryfast"
    """x264 speed preset."""

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51 or self.group_of_pictures < 1:
            raise DataError(
                f"crf is {self.crf} and group_of_pictures {self.group_of_pictures}; allowed are "
                "0 to 51 and at least 1"
            )


def encode_video(
    path: Path, frames_THWC: NDArray[np.uint8], fps: int, quality: VideoQuality
) -> None:
    """Write RGB frames as h264 in mp4, frame k at exactly k / fps, and flush the file to the disk.

    Args:
        path: file to write; its suffix is free.
        frames_THWC: (T, H, W, 3); H and W even, as 4:2:0 chroma needs.
        fps: frames per second.
        quality: compression.

    Raises:
        DataError: wrong shape or odd size.
    """
    if (
        frames_THWC.dtype != np.uint8
        or frames_THWC.ndim != 4
        or frames_THWC.shape[3] != 3
        or not frames_THWC.size
    ):
        raise DataError(
            f"{path}: frames are {frames_THWC.dtype} of shape {frames_THWC.shape}; uint8 "
            "(T, H, W, 3) is needed"
        )
    height, width = frames_THWC.shape[1:3]
    if height % 2 or width % 2:
        raise DataError(
            f"{path}: frames are {width} x {height} px; both must be even: crop by one pixel"
        )
    reformatter = VideoReformatter()
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = quality.group_of_pictures
        stream.codec_context.max_b_frames = 0
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(quality.crf), "preset": quality.preset}
        for index, frame in enumerate(frames_THWC):
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = reformatter.reformat(rgb, format="yuv420p", interpolation="BICUBIC")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    sync(path)


@dataclass(frozen=True, kw_only=True, eq=False)
class PacketTable:
    """What the packets of a video file say about its frames, without decoding one."""

    pts: NDArray[np.int64]
    """(T,) presentation time of each frame, increasing; frames that share a time count once [time_base]."""
    time_base: Fraction
    """Length of one tick of `pts` [s]."""
    keyframes: NDArray[np.int32]
    """(K,) frame numbers that can be decoded without the frames before them."""

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(T,) presentation time of each frame [s]."""
        return self.pts.astype(np.float64) * float(self.time_base)


def read_packets(path: Path) -> PacketTable:
    """Read the time of every frame and which are key frames; nothing is decoded.

    Raises:
        DataError: not a video, no frames, or cut short.
    """
    with open_container(path) as container:
        stream = video_stream(container, path)
        pts: list[int] = []
        keys: list[int] = []
        end_s, discarded = 0.0, 0
        try:
            for packet in container.demux():
                if packet.pts is None or packet.size == 0:
                    continue
                time_s = float(packet.pts * packet.time_base)
                end_s = max(end_s, time_s + float((packet.duration or 0) * packet.time_base))
                if packet.stream.index != stream.index:
                    continue
                if packet.is_discard:  # cut off by the edit list of a trimmed mp4, and never shown
                    discarded += 1
                else:
                    pts.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
        except FFmpegError as error:
            raise damaged(path, str(error)) from error
        declared, declared_s = stream.frames, (container.duration or 0) / av.time_base
        time_base = stream.time_base
    if not pts or time_base is None:
        raise damaged(path, "no frame")
    if declared and declared != len(pts) + discarded:
        raise damaged(path, f"{len(pts) + discarded} of {declared} frames")
    # Only matroska and webm carry no frame count; their length is all that betrays a cut file.
    period_s = float(np.median(np.diff(pts)) * time_base) if len(pts) > 1 else 0.0
    if not declared and declared_s and end_s < declared_s - max(0.5, 2.0 * period_s):
        raise damaged(path, f"{end_s:.2f} s of {declared_s:.2f} s")
    ordered = np.unique(np.asarray(pts, dtype=np.int64))
    keyframes = np.searchsorted(ordered, np.unique(np.asarray(keys, dtype=np.int64)))
    return PacketTable(pts=ordered, time_base=time_base, keyframes=keyframes.astype(np.int32))


def read_timestamps(path: Path) -> NDArray[np.float64]:
    """Return the presentation time of every frame [s], sorted; nothing is decoded.

    Raises:
        DataError: not a video, no frames, or cut short.
    """
    return read_packets(path).times_s


def decode_frames(
    path: Path, start_s: float = -np.inf, end_s: float = np.inf
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield (time [s], RGB (H, W, 3)) of each frame with start_s <= time < end_s, in order.

    Raises:
        DataError: the file cannot be opened or a frame is damaged.
    """
    with open_container(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}  # no concealed damage
        first = True
        try:
            if start_s > 0 and np.isfinite(start_s):
                container.seek(round(start_s * av.time_base), backward=True)
            reformatter = VideoReformatter()
            for frame in container.decode(stream):
                if frame.pts is None or frame.time_base is None:
                    raise damaged(path, "a frame without a time")
                time_s = float(frame.pts * frame.time_base)
                if first and time_s > start_s > 0:
                    break  # the seek overshot: some files index their key frames wrongly
                first = False
                if time_s >= end_s:
                    return
                if frame.is_corrupt:
                    raise damaged(path, f"a corrupt frame at {time_s:.3f} s")
                if time_s >= start_s:
                    yield time_s, _to_rgb(reformatter, frame)
            else:
                return
        except FFmpegError as error:
            raise damaged(path, str(error)) from error
    for time_s, image in decode_frames(path, end_s=end_s):
        if time_s >= start_s:
            yield time_s, image


def _to_rgb(reformatter: VideoReformatter, frame: av.VideoFrame) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = np.asarray(reformatter.reformat(frame, format="rgb24").to_ndarray())
    turns = round((frame.rotation or 0) / 90)  # phones store upright video lying down
    return np.ascontiguousarray(np.rot90(image, turns)) if turns % 4 else image


def open_container(path: Path, *, probe: bool = True) -> av.container.InputContainer:
    """Open a video file.

    Args:
        path: the file.
        probe: decode some of it, to learn what its header does not say; without, that stays unknown.

    Raises:
        DataError: it says what is wrong with the file.
    """
    if not path.is_file():
        raise DataError(f"{path}: the video is missing; copy it again or leave its episode out")
    try:
        return av.open(
            str(path),
            metadata_errors="replace",  # titles of any encoding
            container_options={} if probe else {"codec_whitelist": "none"},  # no decoder is tried
        )
    except FFmpegError as error:
        raise damaged(path, str(error)) from error


def video_stream(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    """Return the first video stream, or raise DataError when there is none."""
    if not container.streams.video:
        raise DataError(f"{path} holds no video stream, only {[s.type for s in container.streams]}")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise damaged(path, "there is no decoder for its codec")
    return stream


def damaged(path: Path, found: str) -> DataError:
    """Return the error of a file that is not whole."""
    return DataError(
        f"{path}: the video is damaged or cut short ({found}); a complete file is needed: copy or "
        "record it again"
    )
