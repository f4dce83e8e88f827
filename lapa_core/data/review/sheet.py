# SPDX-License-Identifier: Apache-2.0
"""What the review page shows of a recording: a strip of pictures, the figures, the decision so far."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.curation import Mark
from lapa_core.data.judge import Judged, first_picture_s
from lapa_core.data.mcap_episode import read_pictures
from lapa_core.data.recorded_rows import ROUNDING_S, seconds
from lapa_core.errors import DataError
from lapa_core.image import preprocess

PICTURES = 6
"""Pictures of a strip: the first, the last, and evenly between."""
SIDE_PX = 128


def strip(judged: Judged) -> NDArray[np.uint8]:
    """Return pictures of the first camera side by side, (SIDE_PX, PICTURES * SIDE_PX, 3).

    Raises:
        DataError: the recording has no picture of it, or one cannot be decoded.
    """
    topic = next(iter(judged.topics.values()), "")
    recording = judged.recording
    count = len(recording.picture_stamps_s.get(topic, ())) if recording is not None else 0
    if recording is None or not count:
        raise DataError(f"{judged.report.path} has no picture to show")
    chosen = np.linspace(0, count - 1, PICTURES).round().astype(int).tolist()
    pictures = read_pictures(recording.path, topic, chosen)
    return np.concatenate([preprocess(pictures[i], SIDE_PX) for i in chosen], axis=1)


def describe(judged: Judged, folder: Path, mark: Mark | None) -> dict[str, Any]:
    """Return the facts of one recording, fit for JSON."""
    report, recording = judged.report, judged.recording
    metadata = recording.metadata if recording is not None else {}
    return {
        "episode": report.path.relative_to(folder).as_posix(),
        "instruction": report.instruction,
        "operator": str(metadata.get("operator_name", "")),
        "outcome": str(metadata.get("outcome", "")),
        "duration_s": _duration_s(judged),
        "still_share": _number(report.still_share),
        "saturated_share": _number(report.saturated_share),
        "lost_by_recorder": report.recorder_dropped,
        "deltas_s": _deltas_s(judged),
        **{name: _number(value) for name, value in asdict(report.rows).items()},
        "mark": None if mark is None else asdict(mark),
    }


def _duration_s(judged: Judged) -> float:
    stamps = judged.recording.picture_stamps_s.values() if judged.recording is not None else ()
    ends = [(float(s.min()), float(s.max())) for s in stamps if len(s)]
    return max(e for _, e in ends) - min(s for s, _ in ends) if ends else 0.0


def _deltas_s(judged: Judged) -> list[float]:
    """First and last time of a delta, counted as trimming counts them, rounded so that a trim at both keeps all [s]."""
    recording = judged.recording
    if recording is None or not recording.deltas:
        return []
    start_s = first_picture_s(recording)
    times_s = [seconds(message.header.stamp) - start_s for message in recording.deltas]
    first_ms, last_ms = 1e3 * (min(times_s) - ROUNDING_S), 1e3 * (max(times_s) + ROUNDING_S)
    return [max(0.0, math.floor(first_ms) / 1e3), math.ceil(last_ms) / 1e3]


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
