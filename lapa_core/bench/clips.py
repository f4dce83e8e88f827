# SPDX-License-Identifier: Apache-2.0
"""Clips to measure loaders on: textured background, hand-held pan, moving sprites and sensor noise, as VP9 in webm."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH_PX, HEIGHT_PX, RATE_HZ = 320, 240, 12
_MARGIN_PX = 40


def make_clips(folder: Path, *, clips: int, frames: int) -> None:
    """Write clips that cost about as much to decode as Something-Something V2: 320 x 240, 12 Hz, one key frame each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(clips):
        _write(folder / f"{number:05d}.webm", draw_clip(frames, np.random.default_rng(number)))


def draw_clip(frames: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return (T, H, W, 3) RGB."""
    size = (WIDTH_PX + 2 * _MARGIN_PX, HEIGHT_PX + 2 * _MARGIN_PX)
    grains = [
        _texture(rng, size, cell_px) * share for cell_px, share in ((64, 0.6), (16, 0.3), (4, 0.1))
    ]
    background = np.sum(grains, axis=0)
    sprite = _texture(rng, (48, 48), 6)
    walk = np.cumsum(rng.normal(0, 1.5, (frames, 2)), axis=0).clip(-_MARGIN_PX, _MARGIN_PX)
    ends = rng.uniform(0, [HEIGHT_PX - 48, WIDTH_PX - 48], (2, 2))
    path = np.linspace(ends[0], ends[1], frames)
    clip = np.empty((frames, HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    for image, (down, right), (top, left) in zip(clip, walk, path, strict=True):
        y, x = int(down) + _MARGIN_PX, int(right) + _MARGIN_PX
        view = background[y : y + HEIGHT_PX, x : x + WIDTH_PX].copy()
        view[int(top) : int(top) + 48, int(left) : int(left) + 48] = sprite
        image[...] = (view + rng.normal(0, 3, (HEIGHT_PX, WIDTH_PX, 1))).clip(0, 255)
    return clip


def _texture(rng: np.random.Generator, size: tuple[int, int], cell_px: int) -> NDArray[np.float32]:
    """Return smooth random colours (H, W, 3) of a given grain."""
    cells = rng.integers(0, 256, (size[1] // cell_px + 2, size[0] // cell_px + 2, 3), np.uint8)
    return np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC), np.float32)


def _write(path: Path, clip_THWC: NDArray[np.uint8]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=RATE_HZ)
        assert isinstance(stream, av.video.stream.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.codec_context.gop_size = len(clip_THWC) + 1
        stream.codec_context.thread_count = 1
        stream.options = {"deadline": "realtime", "cpu-used": "8", "crf": "32", "b": "0"}
        for number, image in enumerate(clip_THWC):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
