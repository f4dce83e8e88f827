# SPDX-License-Identifier: Apache-2.0
"""What an operator is told of an episode while it is recorded: its figures, and what would keep it out. No rclpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lapa_core.data.recorded_rows import RowLimits
from lapa_ros.recording_quality import Quality
from lapa_ros.troubles import Troubles

FEWEST_ROWS = 10
"""Rates and shares of fewer rows say nothing yet [1]."""


def shortcomings(quality: Quality, limits: RowLimits, control_rate_hz: float) -> dict[str, str]:
    """Return what is not whole so far, by a short name: a gap stays, the others may mend.

    Args:
        quality: the open episode.
        limits: what the judge will ask of it.
        control_rate_hz: rate that its deltas should have [Hz].
    """
    found = {}
    if quality.row_gap_s > limits.max_gap_s:
        found["gap"] = (
            f"{quality.row_gap_s:.2f} s lie between two deltas, at most {limits.max_gap_s:g} s may: "
            "it will not be kept, ~/redo"
        )
    if quality.age_max_s > limits.max_staleness_s:
        found["stale"] = (
            f"a frame or a pose was {quality.age_max_s:.2f} s old at its delta, at most "
            f"{limits.max_staleness_s:g} s may be: is the camera slow, or its clock another?"
        )
    if quality.rows < FEWEST_ROWS:
        return found
    deltas = quality.rows + quality.unseen
    if quality.unseen > limits.max_dropped_fraction * deltas:
        found["unseen"] = (
            f"{quality.unseen} of its {deltas} deltas came before the first frame or pose, at most "
            f"{limits.max_dropped_fraction:.0%} may"
        )
    if abs(quality.row_rate_hz / control_rate_hz - 1) > limits.max_rate_deviation:
        found["rate"] = (
            f"deltas come at {quality.row_rate_hz:.2f} Hz, not at {control_rate_hz:g} Hz"
        )
    if quality.still_share > limits.max_still_share:
        found["still"] = (
            f"nothing moves in {quality.still_share:.0%} of it, at most {limits.max_still_share:.0%} may be still"
        )
    if quality.saturated_share > limits.max_saturated_share:
        found["saturated"] = (
            f"{quality.saturated_share:.0%} of its deltas are at the contract's caps, at most "
            f"{limits.max_saturated_share:.0%} may be: more slowly"
        )
    return found


def describe(quality: Quality) -> str:
    """Return the figures as one line."""
    others = [f"{topic} {t.rate_hz:.1f} Hz" for topic, t in quality.topics.items()]
    if quality.unseen:
        others.append(f"{quality.unseen} deltas before the first frame or pose")
    if quality.rows < 2:
        return ", ".join(["no rows yet", *others])
    rows = f"{quality.rows} rows at {quality.row_rate_hz:.2f} Hz, longest gap {quality.row_gap_s:.2f} s"
    frames = f"frame age p95 {1e3 * quality.frame_age_p95_s:.0f} ms"
    shares = f"{quality.still_share:.0%} still, {quality.saturated_share:.0%} at the caps"
    return ", ".join([rows, frames, shares, *others])


class EpisodeWatch:
    """The open episode as its operator sees it: figures all the time, a shortcoming when it begins and when it is over.

    Attributes:
        quality: what the recorder measured last; None before that.
    """

    RECORDER_SILENCE_S = 3.0
    """A recorder that says nothing for so long is missing [s]."""

    def __init__(self, limits: RowLimits, control_rate_hz: float, say: Callable[[str, str], None]):
        """Judge by `limits` and the rate of deltas [Hz]; say through `say`, which takes a level and a sentence."""
        self._limits, self._control_rate_hz, self._say = limits, control_rate_hz, say
        self.quality: Quality | None = None
        self._troubles = Troubles(say)

    def begin(self) -> None:
        """An episode is opened of which nothing is known."""
        self.quality, self._troubles = None, Troubles(self._say)

    def hear(self, figures: Mapping[str, str], problem: str, now_s: float) -> None:
        """Take what the recorder measured, and its own problem or ""."""
        try:
            self.quality = Quality.from_figures(figures)
        except (KeyError, ValueError) as error:  # a recorder of another version
            text = f"what the recorder measures is not understood: {error!r}"
            self._troubles.happened("figures", text, now_s)
            return
        found = shortcomings(self.quality, self._limits, self._control_rate_hz)
        for name, text in {**found, **({"recorder": problem} if problem else {})}.items():
            self._troubles.happened(name, f"this episode so far: {text}", now_s)

    def look(self, recorder_silent_s: float, now_s: float) -> None:
        """Say which shortcomings are over, and that the recorder is missing."""
        if recorder_silent_s > self.RECORDER_SILENCE_S:
            text = f"the recorder is silent for {recorder_silent_s:.0f} s: what is demonstrated now is lost"
            self._troubles.happened("silent recorder", text, now_s, "error")
        self._troubles.look(now_s)

    def problems(self) -> str:
        """Return what is wrong now, or ""."""
        return self._troubles.describe()

    def figures(self) -> str:
        """Return the figures as one line, or ""."""
        return describe(self.quality) if self.quality is not None else ""
