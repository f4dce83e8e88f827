# SPDX-License-Identifier: Apache-2.0
"""The tables of the README from `results.jsonl`: mean and standard error over seeds, in markdown."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

PROBE_COLUMNS = {
    "r2_codes": "R2 codes",
    "r2_vectors": "R2 vectors",
    "r2_pixel_difference": "R2 pixel difference",
    "r2_first_frame": "R2 first frame",
    "r2_shuffled_codes": "R2 shuffled codes",
    "joint_perplexity": "perplexity, joint",
}


def mean_error(values: list[float]) -> tuple[float, float]:
    """Return mean and standard error over seeds (0 with a single one)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def summarise(rows: Iterable[dict[str, Any]]) -> str:
    """Return the tables; of a cell that ran several times on the same data with the same decoding, the last counts."""
    latest = _latest(rows)
    parts = [_probes(latest), _ceiling(latest), _policies(group_policies(latest))]
    return "\n".join(part for part in parts if part)


def _latest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    told = ("labels", "videos", "pretrain_steps", "near_codes_m", "table_temperature")
    return list(
        {(row["cell"], *(row["key"].get(name) for name in told)): row for row in rows}.values()
    )


def _table(title: str, head: list[str], body: list[list[str]]) -> str:
    lines = [f"\n{title}\n", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)]) if body else ""


def _probes(rows: Iterable[dict[str, Any]]) -> str:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        kind, *rest = row["cell"].split("/")
        if kind == "laq":
            groups[f"{_videos(row)}, {rest[1]}"].append(row)
    body = []
    for name, members in groups.items():
        cells = [
            "{:.3f} +- {:.3f}".format(*mean_error([m["figures"][c] for m in members]))
            for c in PROBE_COLUMNS
        ]
        seconds, _ = mean_error([m["seconds"] for m in members])
        body.append([name, str(len(members)), *cells, f"{seconds:.0f}"])
    return _table(
        "Latent action models, probe on held-out episodes",
        ["videos, design", "seeds", *PROBE_COLUMNS.values(), "s"],
        body,
    )


def _videos(row: dict[str, Any]) -> str:
    """Return how many videos a row's cell learned from, of which domain, and in how many steps if not the recipe's."""
    name = f"{row['key']['videos']} {row['cell'].split('/')[1]}"
    steps = row["key"].get("pretrain_steps")
    return f"{name}, {steps} steps" if steps else name


def _table_decoder(key: dict[str, Any]) -> str:
    """Name a table by its settings; rows of before they were settings sampled at 1."""
    near = " near" if key.get("near_codes_m") else ""
    return f"table{near} T={key.get('table_temperature', 1)}"


def _success(members: list[dict[str, Any]], family: str | None = None) -> str:
    return "{:.1f} +- {:.1f}".format(*success(members, family))


def _ceiling(rows: Iterable[dict[str, Any]]) -> str:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        kind, *rest = row["cell"].split("/")
        if kind == "pretrain" and rest[1] == "actionvla":
            groups[_videos(row)].append(row)
    families = sorted(
        {
            family
            for members in groups.values()
            for m in members
            for family in m["figures"]["families"]
        }
    )
    body = [
        [
            name,
            str(len(members)),
            _success(members),
            *(_success(members, family) for family in families),
        ]
        for name, members in groups.items()
    ]
    return _table(
        "Behaviour cloning on all true actions, success [%]",
        ["videos", "seeds", "all", *families],
        body,
    )


class PolicyName(NamedTuple):
    """What the seeds of one row of the policies' table have in common."""

    labels: str
    """Where the labelled episodes are from."""
    videos: str
    """How many videos, of which domain, in how many steps; "none" without pretraining."""
    arm: str
    """`lapa`, `actionvla`, `scratch`, `lapa_paper`."""
    decoder: str
    """Head or table, with what sets it apart."""
    way: str
    """`sampled` or `greedy`."""


Policies = dict[PolicyName, dict[int, list[dict[str, Any]]]]
"""Name -> number of labelled episodes -> the seeds' rows, whose figures are of that way of decoding."""


def group_policies(rows: Iterable[dict[str, Any]]) -> Policies:
    """Return the finetuned policies' rows by what they have in common."""
    groups: Policies = {}
    for row in _latest(rows):
        kind, *rest = row["cell"].split("/")
        if kind in ("finetune", "table"):
            decoder = "head" if kind == "finetune" else _table_decoder(row["key"])
            videos = "none" if rest[1] == "scratch" else _videos(row)
            greedy = {**row, "figures": row["figures"]["greedy"]}
            for way, figures in (("sampled", row), ("greedy", greedy)):
                name = PolicyName(row["key"]["labels"], videos, rest[1], decoder, way)
                groups.setdefault(name, {}).setdefault(row["labels"], []).append(figures)
    return groups


def success(rows: list[dict[str, Any]], family: str | None = None) -> tuple[float, float]:
    """Return mean and standard error of the success over seeds [%], of one family of instructions or of all."""
    figures = [
        row["figures"]["families"][family] if family else row["figures"]["overall"] for row in rows
    ]
    return mean_error([100 * each["rate"] for each in figures])


def _policies(groups: Policies) -> str:
    counts = sorted({count for group in groups.values() for count in group})
    body = [
        [
            *name[:3],
            f"{name.decoder}, {name.way}",
            *(
                _success(group[count]) + f" ({len(group[count])})" if count in group else "-"
                for count in counts
            ),
        ]
        for name, group in sorted(groups.items())
    ]
    head = ["labels from", "videos", "arm", "decoder", *(f"{count} labels" for count in counts)]
    return _table("Success in the default domain [%], mean and standard error (seeds)", head, body)
