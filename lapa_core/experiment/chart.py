# SPDX-License-Identifier: Apache-2.0
"""The comparison as a picture: success over the number of labelled episodes, one panel per kind of videos."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lapa_core.experiment.summary import Policies, PolicyName, group_policies, success

LINES = {
    ("lapa", "table"): ("LAPA, code-to-action table", "#d55e00", "o", "-"),
    ("lapa", "head"): ("LAPA, head", "#e69f00", "s", "-"),
    ("actionvla", "head"): ("ActionVLA (true actions), head", "#0072b2", "^", "--"),
    ("scratch", "head"): ("SCRATCH, head", "#777777", "x", ":"),
}
"""Arm and decoder -> label, colour (Okabe and Ito's, told apart by the colour-blind too), marker, dash."""


def panels(rows: Iterable[dict[str, Any]]) -> dict[str, Policies]:
    """Return what each panel shows: kind of videos -> policies that sample; of several tables the one made last.

    Only videos that LAPA learned from make a panel; SCRATCH, which sees none, is in all of them.
    """
    groups = {name: group for name, group in group_policies(rows).items() if name.way == "sampled"}
    shown: dict[str, Policies] = {}
    for videos in dict.fromkeys(name.videos for name in groups if name.arm == "lapa"):
        lines: dict[tuple[str, str], PolicyName] = {}
        for name in groups:
            if name.videos in (videos, "none"):
                lines[name.arm, name.decoder.split()[0]] = name
        shown[videos] = {lines[key]: groups[lines[key]] for key in LINES if key in lines}
    return dict(
        sorted(shown.items(), key=lambda panel: (panel[0].split()[1], int(panel[0].split()[0])))
    )


def write_chart(rows: Iterable[dict[str, Any]], path: Path) -> bool:
    """Draw the chart; return whether there was anything to draw."""
    shown = panels(rows)
    if not shown:
        return False
    figure = Figure(figsize=(1.0 + 2.6 * len(shown), 3.6), layout="constrained", dpi=130)
    all_axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (videos, policies) in zip(all_axes, shown.items(), strict=True):
        _panel(axes, policies)
        axes.set_title(_title(videos), fontsize=10)
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
        label, colour, marker, dash = LINES[name.arm, name.decoder.split()[0]]
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


def _title(videos: str) -> str:
    """Return the panel's title: `36000 default, 18000 steps` -> `36,000 videos` and the rest below."""
    count, rest = videos.split(" ", 1)
    return f"{int(count):,} videos\n{rest}"
