# SPDX-License-Identifier: Apache-2.0
"""Episodes to figures: success per family with its standard error, latency percentiles, a table, a summary. No ROS."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class EpisodeScore:
    """What came of one instruction."""

    seed: int
    """Seed of the scene."""
    family: str
    """Family of the task."""
    instruction: str
    """What was asked."""
    outcome: str
    """`success`, `timeout`, or why it could not be tried."""
    steps: int
    """Commands that the policy published."""
    duration_s: float
    """From the goal to its end [s]."""
    path_m: float
    """Way of the measured end effector [m]."""

    @property
    def success(self) -> bool:
        """Whether the task was done."""
        return self.outcome == "success"


def success_rate(scores: Sequence[EpisodeScore]) -> tuple[float, float]:
    """Return the share of successes and its binomial standard error; NaN for no episodes."""
    if not scores:
        return math.nan, math.nan
    share = sum(score.success for score in scores) / len(scores)
    return share, math.sqrt(share * (1.0 - share) / len(scores))


def percentiles_ms(latencies_s: Sequence[float]) -> dict[str, float | None]:
    """Return p50 and p99 [ms]; None where nothing was measured."""
    if len(latencies_s) == 0:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(np.asarray(latencies_s) * 1e3, [50, 99]).tolist()
    return {"p50": round(p50, 2), "p99": round(p99, 2)}


def summary(
    scores: Sequence[EpisodeScore], latencies_s: Sequence[float], applied: int, refused: int
) -> dict[str, Any]:
    """Return everything as JSON-ready values."""
    families = {}
    for family in sorted({score.family for score in scores}):
        members = [score for score in scores if score.family == family]
        share, error = success_rate(members)
        families[family] = {
            "episodes": len(members), "successes": sum(score.success for score in members),
            "success_rate": round(share, 4), "standard_error": round(error, 4),
        }  # fmt: skip
    return {
        "episodes": len(scores),
        "successes": sum(score.success for score in scores),
        "latency_ms": percentiles_ms(latencies_s),
        "applied": applied,
        "refused": refused,
        "families": families,
        "seeds": [score.seed for score in scores],
    }


def table(figures: dict[str, Any]) -> str:
    """Return the figures as text for people."""
    rows = [*figures["families"].items()]
    lines = [f"{'family':<18}{'episodes':>10}{'success':>10}{'standard error':>18}"]
    for family, row in rows:
        lines.append(
            f"{family:<18}{row['episodes']:>10}{row['success_rate']:>10.0%}{row['standard_error']:>18.1%}"
        )
    total, done = figures["episodes"], figures["successes"]
    share = done / total if total else math.nan
    error = math.sqrt(share * (1 - share) / total) if total else math.nan
    lines.append(f"{'all':<18}{total:>10}{share:>10.0%}{error:>18.1%}")
    latency = figures["latency_ms"]
    shown = (
        "not measured"
        if latency["p50"] is None
        else f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms"
    )
    lines.append(f"observation to command: {shown}")
    lines.append(f"commands: {figures['applied']} applied, {figures['refused']} refused")
    return "\n".join(lines)


def write_summary(path: Path, figures: dict[str, Any]) -> None:
    """Write the figures as JSON, under a temporary name first."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    temporary.rename(path)
