# SPDX-License-Identifier: Apache-2.0
"""Annotated video and contact sheet of an evaluation, from the spectator's JPEG frames. No ROS."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_BAR_PX = 40
_THUMB_PX = 160
_COLUMNS = 5
_GREEN, _RED, _WHITE, _DARK = (96, 200, 120), (230, 100, 90), (240, 240, 240), (24, 26, 30)
_LINGER_S = 0.8


@dataclass(kw_only=True)
class Clip:
    """One episode as it was seen."""

    title: str
    """Instruction."""
    success: bool = False
    """Whether it was done; drawn at the end."""
    jpegs: list[bytes] = field(default_factory=list)
    """Frames."""
    times_s: list[float] = field(default_factory=list)
    """Time of each since the start of the episode [s]."""


class Film:
    """The clips of an evaluation's first episodes; frames come from another thread than episodes.

    Attributes:
        clips: those that are over.
    """

    def __init__(self, most: int):
        """Keep `most` clips: a clip is about a megabyte of memory."""
        self.clips: list[Clip] = []
        self._most = most
        self._lock = threading.Lock()
        self._open: Clip | None = None
        self._start_s = 0.0

    def begin(self, title: str, start_s: float) -> None:
        """Begin an episode at a frame's stamp [s], in the place of one that never ended."""
        with self._lock:
            self._open = Clip(title=title) if len(self.clips) < self._most else None
            self._start_s = start_s

    def add(self, jpeg: bytes, stamp_s: float) -> None:
        """Take a frame, stamped `stamp_s` [s]; one from before or between episodes is dropped."""
        with self._lock:
            if self._open is not None and stamp_s >= self._start_s:
                self._open.jpegs.append(jpeg)
                self._open.times_s.append(stamp_s - self._start_s)

    def end(self, success: bool) -> None:
        """End the episode, if one has begun."""
        with self._lock:
            if self._open is not None:
                self._open.success = success
                self.clips.append(self._open)
            self._open = None


def write_video(path: Path, clips: Sequence[Clip], rate_hz: float) -> None:
    """Write all clips one after the other as H.264, each frame with its instruction, time and outcome."""
    import av

    with av.open(str(path), "w") as container:
        stream = None
        for picture in _annotated(clips, rate_hz):
            if stream is None:
                stream = container.add_stream(
                    "h264", rate=Fraction(rate_hz).limit_denominator(1000)
                )
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "23", "preset": "veryfast"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode(None))


def write_contact_sheet(path: Path, clips: Sequence[Clip]) -> None:
    """Write one picture: the last frame of every episode over its instruction, framed green or red."""
    shown = [clip for clip in clips if clip.jpegs]
    columns = max(1, min(_COLUMNS, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    cell = (_THUMB_PX + 12, _THUMB_PX + 12 + _BAR_PX)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), _DARK)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for index, clip in enumerate(shown):
        left, top = index % columns * cell[0] + 6, index // columns * cell[1] + 6
        draw.rectangle(
            (left - 3, top - 3, left + _THUMB_PX + 2, top + _THUMB_PX + 2),
            fill=_GREEN if clip.success else _RED,
        )
        sheet.paste(_open(clip.jpegs[-1]).resize((_THUMB_PX, _THUMB_PX)), (left, top))
        for line, text in enumerate(_wrap(clip.title, 26)[:2]):
            draw.text((left, top + _THUMB_PX + 6 + 14 * line), text, font=font, fill=_WHITE)
    sheet.save(path)


def _annotated(clips: Sequence[Clip], rate_hz: float) -> Iterator[NDArray[np.uint8]]:
    for clip in clips:
        for jpeg, time_s in zip(clip.jpegs, clip.times_s, strict=True):
            yield _frame(jpeg, clip.title, f"{time_s:4.1f} s", _WHITE)
        if clip.jpegs:
            word, colour = ("done", _GREEN) if clip.success else ("not done", _RED)
            for _ in range(round(_LINGER_S * rate_hz)):
                yield _frame(clip.jpegs[-1], clip.title, word, colour)


def _frame(jpeg: bytes, title: str, note: str, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    picture = _open(jpeg)
    frame = Image.new("RGB", (picture.width, picture.height + _BAR_PX), _DARK)
    frame.paste(picture, (0, _BAR_PX))
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(size=17)
    draw.text((10, 10), title, font=font, fill=_WHITE)
    draw.text(
        (frame.width - 10 - draw.textlength(note, font=font), 10), note, font=font, fill=colour
    )
    return np.asarray(frame)


def _open(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg)).convert("RGB")


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
