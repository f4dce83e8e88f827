# SPDX-License-Identifier: Apache-2.0
"""What the demo shows: a line per episode, a table, a video, a contact sheet and `summary.json`. No ROS in here."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_GREEN, _RED, _WHITE, _DARK = (70, 180, 90), (210, 70, 60), (245, 245, 245), (24, 26, 30)
_BAR_PX = 44
_SHEET_CELL_PX = 200


@dataclass(kw_only=True)
class EpisodeResult:
    """One instruction, followed or not."""

    index: int
    """Number of the episode, from 1."""
    seed: int
    """Seed of the scene."""
    family: str
    """Task family."""
    instruction: str
    """The words that the policy got."""
    success: bool
    """Whether the simulator saw the task done."""
    outcome: str
    """How the run ended: `success`, `timeout`, or the reason that a node gave."""
    steps: int
    """Deltas that the arm applied."""
    seconds: float
    """From the goal to the end [s]."""
    frames: list[tuple[float, NDArray[np.uint8]]] = field(default_factory=list)
    """(seconds since the goal, RGB image) of the spectator camera."""

    def line(self, total: int) -> str:
        """Return the live line of this episode."""
        mark = "ok  " if self.success else "FAIL"
        return (
            f"[{self.index:2d}/{total}] {mark} {self.seconds:5.1f} s {self.steps:3d} steps  "
            f"seed {self.seed}  {self.instruction!r}"
            + ("" if self.success else f"  ({self.outcome})")
        )


def summarise(
    results: list[EpisodeResult], latencies_ms: list[float], refused: int, problems: list[str]
) -> dict[str, Any]:
    """Return the content of `summary.json`: success per family with its standard error, latency, refusals."""
    families = {}
    for family in sorted({r.family for r in results}):
        members = [r for r in results if r.family == family]
        families[family] = _rate(sum(r.success for r in members), len(members))
    successes = sum(r.success for r in results)
    latency = {
        name: round(float(np.percentile(latencies_ms, level)), 2) if latencies_ms else None
        for name, level in (("p50", 50), ("p99", 99))
    }
    return {
        "episodes": len(results), "successes": successes, "success": _rate(successes, len(results)),
        "latency_ms": {**latency, "commands": len(latencies_ms)}, "refused": refused, "families": families,
        "problems": problems,
        "runs": [
            {"seed": r.seed, "family": r.family, "instruction": r.instruction, "success": r.success,
             "outcome": r.outcome, "steps": r.steps, "seconds": round(r.seconds, 2)} for r in results
        ],
    }  # fmt: skip


def table(summary: dict[str, Any]) -> str:
    """Return the closing table as text."""
    lines = ["", f"{'family':<20}{'success':>12}{'rate':>10}{'std. error':>12}", "-" * 54]
    rows = [*summary["families"].items(), ("all", summary["success"])]
    for name, rate in rows:
        done = f"{rate['successes']}/{rate['episodes']}"
        lines.append(f"{name:<20}{done:>12}{rate['rate']:>9.0%} {rate['standard_error']:>11.1%}")
    latency = summary["latency_ms"]
    shown = (
        "none measured"
        if latency["p50"] is None
        else f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms"
    )
    lines += ["", f"observation to command: {shown} over {latency['commands']} commands"]
    lines.append(f"commands refused by the arm: {summary['refused']}")
    lines += [f"problem: {problem}" for problem in summary["problems"]]
    return "\n".join(lines)


def write_summary(summary: dict[str, Any], path: Path) -> None:
    """Write `summary.json`."""
    path.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")


def write_video(results: list[EpisodeResult], path: Path, rate_hz: float = 10.0) -> None:
    """Write every episode, one after the other, in real time as an annotated H.264 MP4."""
    height, width = _largest_frame(results)
    size = (width + width % 2, height + _BAR_PX + (height + _BAR_PX) % 2)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate_hz).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"crf": "23", "preset": "veryfast"}
        for result in results:
            for image in _paced(result, rate_hz):
                frame = av.VideoFrame.from_ndarray(
                    np.asarray(_annotate(image, result, size, len(results)))
                )
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_contact_sheet(results: list[EpisodeResult], path: Path, columns: int = 5) -> None:
    """Write a PNG: first and last frame of every episode, framed green or red, with its instruction."""
    cell_w, cell_h = 2 * _SHEET_CELL_PX, _SHEET_CELL_PX + 36
    rows = math.ceil(len(results) / columns)
    sheet = Image.new("RGB", (columns * cell_w, rows * cell_h), _DARK)
    draw = ImageDraw.Draw(sheet)
    for number, result in enumerate(results):
        left, top = number % columns * cell_w, number // columns * cell_h
        for side, image in enumerate(_first_and_last(result)):
            thumb = _square(image).resize((_SHEET_CELL_PX - 6, _SHEET_CELL_PX - 6))
            sheet.paste(thumb, (left + side * _SHEET_CELL_PX + 3, top + 3))
        colour = _GREEN if result.success else _RED
        draw.rectangle(
            (left + 1, top + 1, left + cell_w - 2, top + cell_h - 2), outline=colour, width=3
        )
        caption = f"{result.index}. {result.instruction}"
        draw.text((left + 8, top + _SHEET_CELL_PX + 8), caption, fill=_WHITE, font=_font(14))
    sheet.save(path)


def _rate(successes: int, episodes: int) -> dict[str, Any]:
    rate = successes / episodes if episodes else 0.0
    error = math.sqrt(rate * (1 - rate) / episodes) if episodes else 0.0
    return {"successes": successes, "episodes": episodes, "rate": rate, "standard_error": error}


def _largest_frame(results: list[EpisodeResult]) -> tuple[int, int]:
    shapes = [image.shape[:2] for result in results for _, image in result.frames]
    return (max(h for h, _ in shapes), max(w for _, w in shapes)) if shapes else (240, 320)


def _paced(result: EpisodeResult, rate_hz: float) -> list[NDArray[np.uint8]]:
    """Resample to a fixed rate, newest frame at every tick, and rest on the last for half a second."""
    if not result.frames:
        return []
    times = np.array([t for t, _ in result.frames])
    ticks = np.arange(times[0], times[-1] + 0.5, 1 / rate_hz)
    chosen = np.clip(np.searchsorted(times, ticks, side="right") - 1, 0, len(times) - 1)
    return [result.frames[i][1] for i in chosen]


def _annotate(
    image: NDArray[np.uint8], result: EpisodeResult, size: tuple[int, int], total: int
) -> Image.Image:
    canvas = Image.new("RGB", size, _DARK)
    canvas.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(canvas)
    bar_top = size[1] - _BAR_PX
    draw.text(
        (8, bar_top + 4),
        f"{result.index}/{total}  {result.instruction}",
        fill=_WHITE,
        font=_font(15),
    )
    status = f"{result.family}, seed {result.seed}: " + (
        "done" if result.success else result.outcome
    )
    draw.text((8, bar_top + 24), status, fill=_GREEN if result.success else _RED, font=_font(13))
    return canvas


def _first_and_last(result: EpisodeResult) -> list[NDArray[np.uint8]]:
    if not result.frames:
        return [np.full((8, 8, 3), 60, np.uint8)] * 2
    return [result.frames[0][1], result.frames[-1][1]]


def _square(image: NDArray[np.uint8]) -> Image.Image:
    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return Image.fromarray(image[top : top + side, left : left + side])


def _font(size_px: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size_px)
