# SPDX-License-Identifier: Apache-2.0
"""Chosen frames of a video as centre squares of one size, straight from the decoder's planes.

One pass of swscale crops, resizes and converts to RGB, which takes about a third of the time of converting the whole
frame and resizing it with Pillow. The crop is that of `lapa_core.image.preprocess` and the filter is the same
triangle, widened when reducing. What remains between the two is colour conversion: swscale's whole-frame conversion,
which `preprocess` is given, repeats chroma samples and lies about one grey level low; here chroma is interpolated and
the mean is right. `tests/data/test_scaled_video.py` holds the difference on smooth pictures within a mean of 3 grey
levels. Everything that reads clips (loader, labelling, report) comes through here. Imports numpy and av.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from lapa_core.data.video import damaged, open_container, video_stream
from lapa_core.errors import DataError

_FLAGS = "bilinear+full_chroma_int"
"""Without full_chroma_int swscale halves the resolution of colour in the output, and darkens it."""
_WORTH_A_SEEK = 8
"""Frames that a jump to the next key frame must save; a seek costs about as much as decoding a few."""

_DISORDER = 16
"""Frames after the last wanted one that are looked at before a missing one is given up."""


class SquareScaler:
    """Crop, resize and convert frames of any size; the filter graph is rebuilt when the input changes."""

    def __init__(self, image_px: int) -> None:
        self.image_px = image_px
        self._made_for: tuple[int, int, str] | None = None
        self._graph: av.filter.Graph | None = None

    def __call__(self, frame: av.VideoFrame, out_SSC: NDArray[np.uint8]) -> None:
        """Write the centre square of a frame into (S, S, 3) uint8 RGB."""
        kind = (frame.width, frame.height, frame.format.name)
        if self._graph is None or self._made_for != kind:
            self._graph, self._made_for = _make_graph(frame, self.image_px), kind
        self._graph.push(frame)
        picture = self._graph.pull()
        assert isinstance(picture, av.VideoFrame)
        plane = picture.planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
        square = rows[:, : 3 * self.image_px].reshape(self.image_px, self.image_px, 3)
        turns = round((frame.rotation or 0) / 90)  # phones store upright video lying down
        out_SSC[...] = np.rot90(square, turns) if turns % 4 else square


def _make_graph(frame: av.VideoFrame, image_px: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    side = min(frame.width, frame.height)
    left, top = (frame.width - side) // 2, (frame.height - side) // 2
    chain = [
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base,
        ),
        graph.add("crop", f"{side}:{side}:{left}:{top}:exact=1"),
        graph.add("scale", f"{image_px}:{image_px}:flags={_FLAGS}"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    for before, after in pairwise(chain):
        before.link_to(after)
    graph.configure()
    return graph


def read_squares(
    path: Path,
    pts: NDArray[np.int64],
    seeks: list[int],
    scaler: SquareScaler,
    out_NSSC: NDArray[np.uint8],
) -> None:
    """Decode the frames with the given times into `out_NSSC`, in their order.

    Args:
        path: the video file.
        pts: (N,) wanted presentation times, increasing [ticks of the stream].
        seeks: positions in `pts` to jump to instead of decoding on, from `seek_points`.
        scaler: makes the squares.
        out_NSSC: (N, S, S, 3) uint8, filled.

    Raises:
        DataError: the file is missing or damaged, or has no frame at one of the times.
    """
    with open_container(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "NONE"
        stream.codec_context.options = {"err_detect": "explode"}  # no concealed damage
        try:
            for first, last in zip([0, *seeks], [*seeks, len(pts)], strict=True):
                frames = _from(container, stream, int(pts[first]))
                _take(path, frames, pts[first:last].tolist(), scaler, out_NSSC[first:last])
        except FFmpegError as error:
            raise damaged(path, str(error)) from error


def _take(
    path: Path,
    frames: Iterator[av.VideoFrame],
    wanted: list[int],
    scaler: SquareScaler,
    out_NSSC: NDArray[np.uint8],
) -> None:
    """Fill `out_NSSC` with the frames of the wanted times, which a damaged muxer may have put out of order."""
    places = {pts: place for place, pts in enumerate(wanted)}
    late = 0
    for frame in frames:
        place = None if frame.pts is None else places.pop(frame.pts, None)
        if place is not None:
            if frame.is_corrupt:
                raise damaged(path, f"a corrupt frame at tick {frame.pts}")
            scaler(frame, out_NSSC[place])
            if not places:
                return
        elif frame.pts is not None and frame.pts > wanted[-1]:
            late += 1
            if late > _DISORDER:
                break
    raise DataError(
        f"{path}: no frame at tick {min(places)}, which the index names; the file was changed or is damaged: "
        "run `lapa data index` again"
    )


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


def seek_points(numbers: NDArray[np.int64], keyframes: NDArray[np.int32]) -> list[int]:
    """Return the positions in increasing frame numbers before which a jump to a key frame saves decoding."""
    if len(numbers) < 2 or not len(keyframes):  # an episode between two key frames of its file
        return []
    last_key = np.searchsorted(keyframes, numbers[1:], side="right") - 1
    saved = np.where(last_key >= 0, keyframes[last_key], 0) - numbers[:-1]
    return (np.flatnonzero(saved > _WORTH_A_SEEK) + 1).tolist()
