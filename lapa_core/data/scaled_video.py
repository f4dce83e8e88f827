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

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from lapa_core.data.video import damaged
from lapa_core.data.wanted_frames import wanted_frames

_FLAGS = "bilinear+full_chroma_int"
"""Without full_chroma_int swscale halves the resolution of colour in the output, and darkens it."""


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
            time_base=Fraction(1, 1000),  # any: a picture has no time here
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
    try:
        for place, frame in wanted_frames(path, pts.tolist(), seeks):
            scaler(frame, out_NSSC[place])
    except FFmpegError as error:  # of the scaler
        raise damaged(path, str(error)) from error
