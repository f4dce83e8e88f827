# SPDX-License-Identifier: Apache-2.0
"""What an operator is told of an episode while it is recorded: its figures, and what would keep it out. No rclpy."""

from __future__ import annotations

from lapa_core.data.recorded_rows import RowLimits
from lapa_ros.recording_quality import Quality

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
    topics = [f"{topic} {t.rate_hz:.1f} Hz" for topic, t in quality.topics.items()]
    if quality.rows < 2:
        return ", ".join(["no rows yet", *topics])
    rows = f"{quality.rows} rows at {quality.row_rate_hz:.2f} Hz, longest gap {quality.row_gap_s:.2f} s"
    frames = f"frame age p95 {1e3 * quality.frame_age_p95_s:.0f} ms"
    shares = f"{quality.still_share:.0%} still, {quality.saturated_share:.0%} at the caps"
    return ", ".join([rows, frames, shares, *topics])
