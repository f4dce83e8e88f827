# SPDX-License-Identifier: Apache-2.0
"""Check that a video file holds exactly the frames that a data set's tables say, when they say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lapa_core.data.video import decode_frames, read_timestamps
from lapa_core.errors import DataError

_TOLERANCE_S = 1e-3
"""Containers count time in ticks of up to a millisecond (matroska)."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The part of a video file that belongs to one episode."""

    episode: int
    """Index of the episode."""
    start_s: float
    """`from_timestamp` [s]."""
    stop_s: float
    """`to_timestamp` [s]."""
    length: int
    """Frames of the episode."""
    sha256: str | None = None
    """Hash of the file as we wrote it; None for other tools' files."""


def check_video(
    path: Path, spans: Sequence[Span], fps: float, size_px: tuple[int, int], decode: bool
) -> list[str]:
    """Return every disagreement between a file and the episodes in it.

    Args:
        path: video file.
        spans: episodes in it, in any order.
        fps: rate of the data set.
        size_px: (height, width) that the features promise.
        decode: decode the frames; False looks at the packets' times only.
    """
    try:
        times_s = read_timestamps(path)
        decoded_s = times_s
        shapes: set[tuple[int, ...]] = {(*size_px, 3)}
        if decode:
            decoded = [(time_s, frame.shape) for time_s, frame in decode_frames(path)]
            decoded_s = np.array([time_s for time_s, _ in decoded])
            shapes = {shape for _, shape in decoded}
    except DataError as error:
        return [str(error)]
    problems = []
    if len(decoded_s) != len(times_s):
        problems.append(f"{len(decoded_s)} of {len(times_s)} frames can be decoded")
    if shapes != {(*size_px, 3)}:
        problems.append(f"frames have shapes {sorted(shapes)}; info.json says {(*size_px, 3)}")
    expected_s = times_s[0] + np.arange(len(times_s)) / fps
    if np.abs(times_s - expected_s).max() > _TOLERANCE_S:
        rate = (len(times_s) - 1) / (times_s[-1] - times_s[0]) if len(times_s) > 1 else 0.0
        problems.append(f"frames come at {rate:.3f} Hz on average, not each 1/{fps:g} s")
    problems += _check_spans(sorted(spans, key=lambda s: s.start_s), len(times_s), times_s[0], fps)
    hashes = {span.sha256 for span in spans if span.sha256}
    if hashes and hashlib.sha256(path.read_bytes()).hexdigest() not in hashes:
        problems.append(
            "its bytes are not those that were written: the file was changed or damaged"
        )
    return problems


def _check_spans(spans: Sequence[Span], num_frames: int, first_s: float, fps: float) -> list[str]:
    """Check that the episodes follow each other without a gap or overlap and fill the file."""
    problems, position = [], 0
    for span in spans:
        expected_s = first_s + position / fps
        if abs(span.start_s - expected_s) > _TOLERANCE_S:
            off = (span.start_s - expected_s) * fps
            problems.append(
                f"episode {span.episode} begins at {span.start_s:.4f} s; {expected_s:.4f} s is needed, "
                f"its frames are {off:+.2f} frames off"
            )
        if abs(span.stop_s - span.start_s - span.length / fps) > _TOLERANCE_S:
            problems.append(
                f"episode {span.episode} lasts {span.stop_s - span.start_s:.4f} s for {span.length} "
                f"frames at {fps:g} Hz"
            )
        position += span.length
    if position != num_frames:
        problems.append(f"it has {num_frames} frames, its episodes need {position}")
    return problems
