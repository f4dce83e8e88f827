# SPDX-License-Identifier: Apache-2.0
"""The page: one HTML file with everything inside, from figures, charts and pictures that are made elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.report import charts, sheets
from lapa_core.laq.report.actions import SOURCES
from lapa_core.laq.report.measure import Measured
from lapa_core.laq.report.pairs import ReportPairs
from lapa_core.laq.report.summary import Report

MOST_POSITIONS = 16
"""Positions listed in the table of use; the others are in the JSON file."""
SHORT_LABELS = ("codes", "vectors", "pixel diff.", "first frame", "shuffled")
"""Headings of the first of `SOURCES`, narrow enough for a phone."""


def render_page(
    report: Report,
    about: dict[str, Any],
    model: LatentActionModel,
    measured: Measured,
    pairs: ReportPairs,
) -> str:
    """Return the HTML of a report.

    Args:
        report: the figures.
        about: what was measured, as in report.json.
        model: for the pictures.
        measured: codes and errors behind the figures.
        pairs: frames behind the figures.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lapa_core.laq.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(number=number, percent=percent)
    starts: Sequence[NDArray[np.uint8]] | NDArray[np.uint8] = (
        sheets.start_frames(pairs) if report.pictures else []
    )
    codes = report.codes
    return environment.get_template("page.html").render(
        report=report,
        about=about,
        charts=_charts(report, measured, pairs),
        starts=[sheets.data_address(start) for start in starts],
        grid=sheets.code_grid(model, measured, np.asarray(starts)) if report.pictures else [],
        worst=sheets.worst_pairs(model, measured, pairs),
        positions=list(zip(codes.used, codes.perplexity, strict=True))[:MOST_POSITIONS],
        hidden_positions=max(0, len(codes.used) - MOST_POSITIONS),
        still_name=sheets.tuple_name(list(codes.still_tuple)),
        short_labels=SHORT_LABELS,
        table_sources=SOURCES[: len(SHORT_LABELS)],
        null_mean=float(np.mean(report.actions.nmi_null)) if report.actions else 0.0,
    )


def _charts(report: Report, measured: Measured, pairs: ReportPairs) -> dict[str, str]:
    drawn = {"usage": charts.usage_chart(report.codes)}
    if report.actions is not None and pairs.motion_P7 is not None:
        columns = [ACTION_NAMES.index(name) for name in report.actions.translation]
        tuples_P = np.unique(measured.codes_PK, axis=0, return_inverse=True)[1].ravel()
        drawn["probe"] = charts.probe_chart(report.actions)
        drawn["information"] = charts.information_chart(report.actions)
        drawn["scatter"] = charts.scatter_chart(
            report.actions, pairs.motion_P7[:, columns], tuples_P
        )
    return drawn


def number(value: float) -> str:
    """Return a figure with two decimals; a dash for none."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """Return a share as whole percents."""
    return f"{100 * share:.0f} %"
