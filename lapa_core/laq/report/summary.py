# SPDX-License-Identifier: Apache-2.0
"""All figures of one report together, and their JSON form."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from lapa_core.laq.report.actions import MIN_EPISODES, ActionFigures, action_figures, varying
from lapa_core.laq.report.codes import CodeFigures, code_figures
from lapa_core.laq.report.measure import Measured
from lapa_core.laq.report.pairs import ReportPairs
from lapa_core.laq.report.pictures import PictureFigures, picture_figures
from lapa_core.laq.report.verdict import Verdict, judge

NOTHING_FOUND = 0.05
"""R2 below which nothing can be predicted; choice of this project."""
NO_PICTURES = "Pictures: this model reconstructs features, not pixels, so there is nothing to compare or to show."
NO_ACTIONS = (
    "Actions: the data have none (an index never has: give the data set itself), so whether the codes are actions was "
    "not measured. `lapa sim collect --with-actions` records some; a LeRobot or RLDS data set usually has them."
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the page shows."""

    verdict: Verdict
    """The answer."""
    codes: CodeFigures
    """Use of the codes, and controls."""
    pictures: PictureFigures | None
    """Reconstruction; None when the model paints no pictures."""
    actions: ActionFigures | None
    """Probes; None without usable actions."""
    left_out: tuple[str, ...]
    """What could not be measured, and why."""


def summarise(
    measured: Measured, pairs: ReportPairs, *, codes: int, permutations: int, seed: int
) -> Report:
    """Compute every figure; `codes` is N."""
    left_out = []
    code_part = code_figures(measured, codes)
    if code_part.past_future_cosine is None:
        left_out.append("Direction of time: no three frames lie one gap apart in a row.")
    pictures = None if measured.errors is None else picture_figures(measured.errors)
    if pictures is None:
        left_out.append(NO_PICTURES)
    actions = None
    if reason := why_no_actions(pairs):
        left_out.append(reason)
    elif pairs.motion_P7 is not None:
        actions = action_figures(
            measured,
            pairs.motion_P7,
            pairs.folds_P,
            codes=codes,
            permutations=permutations,
            seed=seed,
        )
        if max(actions.r2.values()) < NOTHING_FOUND:
            left_out.append(
                f"A firm word on the actions: the probe predicts them from nothing, not even from the pixels. "
                f"{len(pairs)} pairs from {len(pairs.names)} episodes are too few, or the actions do not show in "
                "these frames; so a bad score here says little about the codes."
            )
        if actions.constant:
            left_out.append(
                f"Action dimensions that do not vary here: {', '.join(actions.constant)}."
            )
    return Report(
        verdict=judge(code_part, pictures, actions),
        codes=code_part,
        pictures=pictures,
        actions=actions,
        left_out=tuple(left_out),
    )


def why_no_actions(pairs: ReportPairs) -> str | None:
    """Return why the codes cannot be compared with actions, or None when they can."""
    if pairs.motion_P7 is None:
        return NO_ACTIONS
    folds_P = pairs.folds_P
    if (episodes := int(folds_P.max()) + 1) < MIN_EPISODES:
        return (
            f"Actions: the pairs come from {episodes} episodes; a probe needs at least {MIN_EPISODES}, half to fit "
            "and half to score."
        )
    if not varying(pairs.motion_P7, folds_P):
        return "Actions: every action dimension is constant, so there is nothing to predict."
    return None


def to_json(report: Report, about: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON-able form, derived figures included; what is not a number becomes null."""
    document = {"about": about, **asdict(report)}
    for criterion, plain in zip(
        report.verdict.criteria, document["verdict"]["criteria"], strict=True
    ):
        plain["level"] = criterion.level
    if report.pictures is not None:
        document["pictures"]["gain_db"] = report.pictures.gain_db
        document["pictures"]["delta_db"] = report.pictures.delta_db
    if report.actions is not None:
        null = document["actions"].pop("nmi_null")
        document["actions"]["nmi_null"] = {
            "mean": sum(null) / len(null),
            "max": max(null),
            "permutations": len(null),
        }
        document["actions"]["nmi_excess"] = report.actions.nmi_excess
    return _finite(document)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
