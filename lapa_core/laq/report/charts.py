# SPDX-License-Identifier: Apache-2.0
"""Charts as inline SVG: they take the page's text colour, so that they are readable in light and in dark.

Shapes: P pairs, K latent tokens, N codes per token.
"""

from __future__ import annotations

import io
import re

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lapa_core.laq.report.actions import ActionFigures
from lapa_core.laq.report.codes import CodeFigures

WIDTH_IN = 3.9
"""Width of a chart; small, because a phone shows it at a third of this in text size otherwise."""
INK, FAINT, ACCENT, SECOND = "#010101", "#020202", "#030303", "#040404"
"""Stand-ins that become the page's own colours."""
_PAGE_COLOURS = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
}
MOST_BAR_ROWS = 4
"""Positions that get bars of their own; more are drawn as a map."""
SCATTER_POINTS = 1500
"""Points in the scatter at most."""
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lapa",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
SOURCE_LABELS = {
    "codes": "codes (one-hot)",
    "vectors": "vectors",
    "pixel_difference": "pixel difference",
    "first_frame": "first frame only",
    "shuffled_codes": "shuffled codes",
    "stranger_codes": "stranger as later",
}


def usage_chart(codes: CodeFigures) -> str:
    """Draw how often each code occurs, a row per position."""
    share_KN = np.array(codes.counts) / np.sum(codes.counts[0])
    positions = len(share_KN)
    if positions > MOST_BAR_ROWS:
        return _usage_map(share_KN)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, 0.8 + 1.0 * positions), layout="constrained")
        rows = figure.subplots(positions, 1, sharex=True, squeeze=False)[:, 0]
        for position, (axes, share_N) in enumerate(zip(rows, share_KN, strict=True)):
            axes.bar(np.arange(codes.codes), 100 * share_N, color=ACCENT, width=0.8)
            axes.axhline(100 / codes.codes, color=SECOND, linewidth=1.2, linestyle="--")
            axes.set_ylabel(f"token {position + 1} [%]" if positions > 1 else "pairs [%]")
        _whole_ticks(rows[-1], codes.codes)
        rows[-1].set_xlabel("code")
        return _svg(figure, "usage")


def _usage_map(share_KN: NDArray[np.float64]) -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.4), layout="constrained")
        axes = figure.subplots()
        drawn = axes.imshow(100 * share_KN, aspect="auto", cmap="viridis", vmin=0)
        axes.set(xlabel="code", ylabel="token")
        figure.colorbar(drawn, ax=axes, label="pairs [%]")
        return _svg(figure, "usage")


def _whole_ticks(axes: Axes, count: int) -> None:
    axes.set_xticks(np.unique(np.linspace(0, count - 1, min(count, 8)).round().astype(int)))


def probe_chart(actions: ActionFigures) -> str:
    """Draw the R2 of each thing that a probe can read."""
    names = list(actions.r2)[::-1]
    value = np.array([actions.r2[name] for name in names])
    shown = value.clip(0.0, 1.0)
    colours = [ACCENT if name in ("codes", "vectors") else SECOND for name in names]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.barh([SOURCE_LABELS[name] for name in names], shown, color=colours, height=0.62)
        for row, (length, number) in enumerate(zip(shown, value, strict=True)):
            axes.text(length + 0.02, row, f"{round(float(number), 2) + 0.0:.2f}", va="center")
        axes.set(xlim=(0, 1.14), xlabel="R2 on held-out episodes")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
        axes.tick_params(axis="y", length=0)
        return _svg(figure, "probe")


def information_chart(actions: ActionFigures) -> str:
    """Draw the mutual information beside its null."""
    null = np.array(actions.nmi_null)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, 2.5), layout="constrained")
        axes = figure.subplots()
        end = 1.05 * max(actions.nmi, null.max(), 0.1)
        axes.hist(null, np.linspace(0, end, 60).tolist(), color=SECOND, label="at random")
        axes.axvline(actions.nmi, color=ACCENT, linewidth=2.5, label="these codes")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False)
        axes.set(xlabel="normalised mutual information", ylabel="re-pairings", xlim=(0, end))
        return _svg(figure, "information")


def scatter_chart(
    actions: ActionFigures, motion_PA: NDArray[np.float64], tuples_P: NDArray[np.int64]
) -> str:
    """Draw true motions, coloured by the mean direction of all motions with the same code.

    Args:
        actions: figures, for the names of the columns.
        motion_PA: true motion in those columns.
        tuples_P: number of each pair's code tuple.
    """
    across, up = _two_liveliest(motion_PA)
    plane_P2 = motion_PA[:, [across, up]]
    count_Q = np.bincount(tuples_P)
    sum_Q2 = np.stack([np.bincount(tuples_P, weights=plane_P2[:, i]) for i in (0, 1)], axis=1)
    mean_Q2 = sum_Q2.astype(np.float64) / np.maximum(count_Q, 1)[:, None]
    shown = slice(SCATTER_POINTS)
    unit = "m" if actions.translation[across].startswith("d") else ""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.scatter(
            plane_P2[shown, 0],
            plane_P2[shown, 1],
            c=_direction_colours(mean_Q2, plane_P2)[tuples_P[shown]],
            s=9,
            linewidths=0,
            rasterized=True,
        )
        axes.scatter(
            mean_Q2[count_Q > 0, 0],
            mean_Q2[count_Q > 0, 1],
            facecolors="none",
            edgecolors=INK,
            s=22,
            linewidths=0.8,
        )
        axes.set(
            xlabel=f"{actions.translation[across]} {f'[{unit}]' if unit else ''}".strip(),
            ylabel=f"{actions.translation[up]} {f'[{unit}]' if unit else ''}".strip(),
        )
        axes.locator_params(nbins=5)
        if unit:
            axes.set_aspect("equal", adjustable="datalim")
        return _svg(figure, "scatter")


def _two_liveliest(motion_PA: NDArray[np.float64]) -> tuple[int, int]:
    if motion_PA.shape[1] == 1:
        return 0, 0
    best = np.sort(np.argsort(-motion_PA.std(axis=0), kind="stable")[:2])
    return int(best[0]), int(best[1])


def _direction_colours(
    mean_Q2: NDArray[np.float64], plane_P2: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Hue from the direction of a code's mean motion, saturation from its length: a code that means nothing is grey."""
    middle_Q2 = mean_Q2 - plane_P2.mean(axis=0)
    hue = (np.arctan2(middle_Q2[:, 1], middle_Q2[:, 0]) / (2 * np.pi)) % 1.0
    typical = max(float(np.linalg.norm(plane_P2 - plane_P2.mean(axis=0), axis=1).mean()), 1e-9)
    saturation = np.clip(np.linalg.norm(middle_Q2, axis=1) / typical, 0.0, 1.0)
    return np.asarray(hsv_to_rgb(np.stack([hue, 0.9 * saturation, np.full(len(hue), 0.8)], axis=1)))


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as an element for a page: ids of its own, the page's colours, no fixed size."""
    buffer = io.StringIO()
    figure.set_facecolor("none")
    for axes in figure.axes:
        axes.set_facecolor("none")
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1, flags=re.DOTALL)
    for stand_in, colour in _PAGE_COLOURS.items():
        text = text.replace(stand_in, colour)
    return text
