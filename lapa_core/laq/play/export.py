# SPDX-License-Identifier: Apache-2.0
"""A rollout as an MP4 at the pace of the data, enlarged by a whole factor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.video import VideoQuality, encode_video


def enlarge(film_TSSC: NDArray[np.uint8], frame_px: int) -> NDArray[np.uint8]:
    """Return frames of at least `frame_px`, with an even side, as the video codec needs."""
    side = film_TSSC.shape[1]
    factor = max(1, -(-frame_px // side))
    factor += factor * side % 2
    return np.repeat(np.repeat(film_TSSC, factor, axis=1), factor, axis=2)


def export_film(
    path: Path, film: list[NDArray[np.uint8]], gap_s: float, frame_px: int
) -> tuple[int, int]:
    """Write a film; return its frames per second and side [px].

    Args:
        path: MP4 to write.
        film: frames (S, S, 3), `gap_s` apart.
        gap_s: time between frames [s]; the film plays at the nearest whole rate, at least 1 per second.
        frame_px: least side of the pictures [px].
    """
    frames_TSSC = enlarge(np.stack(film), frame_px)
    fps = max(1, round(1.0 / gap_s))
    path.parent.mkdir(parents=True, exist_ok=True)
    encode_video(path, frames_TSSC, fps, VideoQuality())
    return fps, frames_TSSC.shape[1]
