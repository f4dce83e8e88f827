# SPDX-License-Identifier: Apache-2.0
"""The table of options in markdown: mean and standard error over seeds, one table per domain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from lapa_core.experiment.options_cells import measured, option_cells, option_key
from lapa_core.experiment.options_config import LaqOptionsConfig
from lapa_core.experiment.options_recipes import OPTIONS
from lapa_core.experiment.summary import mean_error

COLUMNS = {
    "r2_codes": "R2 of codes",
    "r2_vectors": "R2 of vectors",
    "r2_pixel_difference": "pixel difference",
    "r2_first_frame": "first frame",
}
NOT_MEASURED = "not measured: needs pretrained weights (`--dinov2`), random ones would say nothing"


def option_table(config: LaqOptionsConfig, rows: Iterable[dict[str, Any]]) -> str:
    """Return the tables of the configuration's domains; a cell that ran several times counts once, the last time."""
    keys = [option_key(config, cell) for cell in option_cells(config)]
    figures: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["cell"].startswith("laq/") and row["key"] in keys:
            _, domain, name, _ = row["cell"].split("/")
            figures[domain, name][row["cell"]] = row["figures"]
    return "\n".join(_domain_table(config, domain, figures) for domain in config.domains)


def _domain_table(
    config: LaqOptionsConfig,
    domain: str,
    figures: dict[tuple[str, str], dict[str, dict[str, Any]]],
) -> str:
    head = [
        "option",
        "what it is",
        "seeds",
        *COLUMNS.values(),
        "joint perplexity",
        "steps",
        "CPU s",
    ]
    lines = [f"\nVideos of the domain `{domain}`\n"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in config.options or OPTIONS:
        runs = list(figures[domain, name].values())
        if runs:
            lines.append("| " + " | ".join(_row(name, runs)) + " |")
        elif not measured(config, name):
            lines.append(
                f"| {name} | {OPTIONS[name].what} | {NOT_MEASURED} |" + " |" * (len(head) - 3)
            )
    return "\n".join(lines)


def _row(name: str, runs: list[dict[str, Any]]) -> list[str]:
    probes = ["{:.3f} +- {:.3f}".format(*mean_error([run[c] for run in runs])) for c in COLUMNS]
    return [
        name,
        OPTIONS[name].what,
        str(len(runs)),
        *probes,
        f"{mean_error([run['joint_perplexity'] for run in runs])[0]:.1f}",
        f"{mean_error([run['steps'] for run in runs])[0]:.0f}",
        f"{mean_error([run['cpu_s'] for run in runs])[0]:.0f}",
    ]
