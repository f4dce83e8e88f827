# SPDX-License-Identifier: Apache-2.0
"""The comparison as a picture: success over the number of labelled episodes, one panel per kind of videos."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lapa_core.experiment.summary import Policies, Videos, group_policies, latest_rows, success

LINES = {
    ("lapa", "table"): ("LAPA, code-to-action table", "#d55e00", "o", "-"),
    ("lapa", "head"): ("LAPA, head", "#e69f00", "s", "-"),
    ("actionvla", "head"): ("ActionVLA (true actions), head", "#0072b2", "^", "--"),
    ("vpt", "head"): ("VPT (pseudo-labels), head", "#009e73", "D", "--"),
    ("unipi", "video plan"): ("UniPi (video plans), inverse dynamics", "#56b4e9", "P", ":"),
    ("openvla", "head"): ("OpenVLA's recipe (other robots' actions), head", "#cc79a7", "v", "-."),
    ("scratch", "head"): ("SCRATCH, head", "#777777", "x", ":"),
}
"""Arm and decoder -> label, colour (Okabe and Ito's, told apart by the colour-blind too), marker, dash."""

ELSEWHERE = ("scratch", "openvla")
"""Arms that saw none of the videos of a panel."""


def panels(rows: Iterable[dict[str, Any]]) -> dict[Videos, Policies]:
    """Return what each panel shows: videos -> policies that sample; of several tables the one made last.

    Only videos that LAPA learned from make a panel; who saw none of them, SCRATCH and OpenVLA's recipe, is in all.
    """
    groups = group_policies(latest_rows(rows))
    sampled = [name for name in groups if name.way == "sampled"]
    shown: dict[Videos, Policies] = {}
    for videos in sorted({name.videos for name in sampled if name.arm == "lapa"}):
        here = [name for name in sampled if name.videos == videos or name.arm in ELSEWHERE]
        last = {(name.arm, name.decoder): name for name in here}
        shown[videos] = {last[line]: groups[last[line]] for line in LINES if line in last}
    return shown


def write_chart(rows: Iterable[dict[str, Any]], path: Path) -> bool:
    """Draw the chart; return whether there was anything to draw."""
    shown = panels(rows)
    if not shown:
        return False
    figure = Figure(figsize=(1.0 + 2.6 * len(shown), 3.6), layout="constrained", dpi=130)
    all_axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (videos, policies) in zip(all_axes, shown.items(), strict=True):
        _panel(axes, policies)
        steps = f", {videos.steps:,} steps" if videos.steps else ""
        axes.set_title(f"{videos.episodes:,} videos\n{videos.domain}{steps}", fontsize=10)
    all_axes[0].set_ylabel("success [%]")
    handles = {h.get_label(): h for axes in all_axes for h in axes.containers}
    figure.legend(
        handles=list(handles.values()), loc="outside lower center", ncols=2, frameon=False
    )
    figure.savefig(path)
    return True


def _panel(axes: Axes, policies: Policies) -> None:
    counts = sorted({count for group in policies.values() for count in group})
    for name, group in policies.items():
        label, colour, marker, dash = LINES[name.arm, name.decoder]
        x = [count for count in counts if count in group]
        mean, error = zip(*(success(group[count]) for count in x), strict=True)
        axes.errorbar(
            x, mean, error, label=label, color=colour, marker=marker, linestyle=dash, capsize=2.5
        )
    axes.set(xscale="log", ylim=(0, 100), xlabel="labelled episodes")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
