# SPDX-License-Identifier: Apache-2.0
"""The wanted frames of a video by their times, with little besides them opened or decoded.

Opening a file usually decodes some of it, to learn what its header does not say; a video that the index knows does not
need that. On the way to a wanted frame those to which no other refers are left out, and nothing after the packet of
the last one is decoded. A file in which that does not find every frame is read again in the plain way, which decides:
its times may be in disorder, its own table of key frames wrong, or it is damaged. A damaged frame is refused wherever
the decoder met it, for those that rest on it are wrong and do not say so. Imports numpy and av.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from lapa_core.data.video import damaged, open_container, video_stream
from lapa_core.errors import DataError

_WORTH_A_SEEK = 8
"""Frames that a jump to the next key frame must save; a seek costs about as much as decoding a few."""
_DISORDER = 16
"""Packets or frames after the last wanted one that are looked at before a missing one is given up."""
_IN_ORDER = ("vp8", "vp9", "libdav1d", "mjpeg")
"""Decoders that put frames out in the order of their packets, so that a container of times alone suffices."""
_SPARING = (*_IN_ORDER, "h264", "hevc")
"""Decoders of which it is tested that little need be given to them."""
_DECODING = {"err_detect": "explode"}
"""No concealed damage."""


def wanted_frames(
    path: Path, pts: Sequence[int], seeks: Sequence[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (place in `pts`, frame) of each wanted frame, in any order.

    Args:
        path: the video file.
        pts: wanted presentation times, increasing [ticks of the stream].
        seeks: positions in `pts` to jump to instead of decoding on, from `seek_points`.

    Raises:
        DataError: the file is missing or damaged, or has no frame at one of the times.
    """
    places = {tick: place for place, tick in enumerate(pts)}
    with suppress(FFmpegError):  # what is wrong is said by the plain way
        for frame in _sound(path, _read_sparingly(path, pts, seeks)):
            place = None if frame.pts is None else places.pop(frame.pts, None)
            if place is not None:
                yield place, frame
    if places:
        yield from _read_plainly(path, places)


def seek_points(numbers: NDArray[np.int64], keyframes: NDArray[np.int32]) -> list[int]:
    """Return the positions in increasing frame numbers before which a jump to a key frame saves decoding."""
    if len(numbers) < 2 or not len(keyframes):  # an episode between two key frames of its file
        return []
    last_key = np.searchsorted(keyframes, numbers[1:], side="right") - 1
    saved = np.where(last_key >= 0, keyframes[last_key], 0) - numbers[:-1]
    return (np.flatnonzero(saved > _WORTH_A_SEEK) + 1).tolist()


def _read_sparingly(
    path: Path, pts: Sequence[int], seeks: Sequence[int]
) -> Iterator[av.VideoFrame]:
    """Yield the frames of the wanted packets, and those that could not be left out before them."""
    with _open_unprobed(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "NONE"
        context = stream.codec_context
        if context.name not in _SPARING:
            return
        context.options = _DECODING
        skips = context.name == "h264"  # it says of every frame whether another may refer to it
        for first, last in zip([0, *seeks], [*seeks, len(pts)], strict=True):
            container.seek(pts[first], stream=stream, backward=True)
            missing, late = set(pts[first:last]), 0
            for packet in container.demux(stream):
                if packet.pts is None or late > _DISORDER:
                    break
                if skips:
                    context.skip_frame = "DEFAULT" if packet.pts in missing else "NONREF"
                yield from context.decode(packet)
                missing.discard(packet.pts)
                late += packet.pts > pts[last - 1]
                if not missing:
                    break
            yield from context.decode(None)


def _open_unprobed(path: Path) -> av.container.InputContainer:
    """Open a video without decoding any of it, where its container gives every frame its time."""
    container = open_container(path, probe=False)
    streams, names = container.streams.video, container.format.name.split(",")
    codec = streams[0].codec_context if streams else None
    if "mp4" in names or (codec is not None and codec.name in _IN_ORDER):
        return container
    container.close()
    return open_container(path)


def _read_plainly(path: Path, places: dict[int, int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield place and frame of times, and take them out; a damaged muxer may have put frames out of order."""
    first, last, late = min(places), max(places), 0
    with open_container(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "NONE"
        stream.codec_context.options = _DECODING
        try:
            for frame in _sound(path, _from(container, stream, first)):
                place = None if frame.pts is None else places.pop(frame.pts, None)
                if place is not None:
                    yield place, frame
                late += frame.pts is not None and frame.pts > last
                if late > _DISORDER:
                    break
        except FFmpegError as error:
            raise damaged(path, str(error)) from error
    if places:
        raise DataError(
            f"{path}: no frame at tick {min(places)}, which the index names; the file was changed or is damaged: "
            "run `lapa data index` again"
        )


def _sound(path: Path, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Pass frames on as long as none is damaged; those before a key frame may rest on what was not read, and count not.

    Raises:
        DataError: a frame is damaged.
    """
    begun = False
    for frame in frames:
        begun = begun or bool(frame.key_frame)
        if not frame.is_corrupt:
            yield frame
        elif begun:
            raise damaged(path, f"a corrupt frame at tick {frame.pts}")


def _from(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, pts: int
) -> Iterator[av.VideoFrame]:
    """Yield frames from a key frame at or before `pts` on, whatever the file's own table of key frames says."""
    container.seek(pts, stream=stream, backward=True)
    frames = container.decode(stream)
    first = next(frames, None)
    if first is None or first.pts is None or first.pts > pts:
        container.seek(stream.start_time or 0, stream=stream, backward=True)
        frames = container.decode(stream)
        first = next(frames, None)
    if first is not None:
        yield first
        yield from frames
