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
    latest = latest_rows(rows)
    parts = [
        _probes(latest),
        _seen(latest),
        _before_finetuning(latest),
        _policies(group_policies(latest)),
    ]
    return "\n".join(part for part in parts if part)


def latest_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows without those that a later run of the same cell, data and decoding replaces."""
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
            groups[f"{Videos.of(row)}, {rest[1]}"].append(row)
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


def _seen(rows: Iterable[dict[str, Any]]) -> str:
    groups: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        kind, domain, *_ = row["cell"].split("/")
        if kind in ("idm", "seen"):
            where = (domain if kind == "seen" else "default", row["labels"])
            groups[where].append(row["figures"]["r2_displacement"])
    body = [
        [domain, str(count), str(len(r2)), "{:.3f} +- {:.3f}".format(*mean_error(r2))]
        for (domain, count), r2 in sorted(groups.items())
    ]
    return _table(
        "Inverse dynamics of labelled default episodes: what it sees in held-out videos",
        ["videos", "labels", "seeds", "R2 of displacements"],
        body,
    )


class Videos(NamedTuple):
    """What a cell learned from before it saw labels."""

    domain: str
    """Their look, keys of `lapa_core.sim.appearance.DOMAINS` joined by +; "" without pretraining."""
    episodes: int
    """How many they are of each look."""
    steps: int
    """Optimizer steps of pretraining; 0 for the recipe's."""

    @classmethod
    def of(cls, row: dict[str, Any]) -> Videos:
        """Read them from a row; SCRATCH has none."""
        _, domain, arm, *_ = row["cell"].split("/")
        if arm == "scratch":
            return cls("", 0, 0)
        return cls(domain, row["key"]["videos"], row["key"].get("pretrain_steps", 0))

    def __str__(self) -> str:
        if not self.domain:
            return "none"
        return f"{self.episodes} {self.domain}" + (f", {self.steps} steps" if self.steps else "")


def _decoder(kind: str, arm: str, key: dict[str, Any]) -> tuple[str, str]:
    if kind == "table":
        return "table", _table_settings(key)
    return ("video plan" if arm == "unipi" else "head"), ""


def _table_settings(key: dict[str, Any]) -> str:
    """Tell a table from others; rows of before these were settings sampled at 1."""
    near = " near" if key.get("near_codes_m") else ""
    return f"{near} T={key.get('table_temperature', 1)}"


def _success_text(members: list[dict[str, Any]], family: str | None = None) -> str:
    return "{:.1f} +- {:.1f}".format(*success(members, family))


def _before_finetuning(rows: Iterable[dict[str, Any]]) -> str:
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        kind, *rest = row["cell"].split("/")
        if kind == "pretrain" and rest[1] in ("actionvla", "vpt", "openvla"):
            whose = f"seen by {row['labels']} episodes' model" if rest[1] == "vpt" else "true"
            groups[str(Videos.of(row)), rest[1], whose].append(row)
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
            *name,
            str(len(members)),
            _success_text(members),
            *(_success_text(members, family) for family in families),
        ]
        for name, members in groups.items()
    ]
    return _table(
        "Pretraining on actions, before finetuning: success [%]; on true ones the ceiling of cloning",
        ["videos", "arm", "actions", "seeds", "all", *families],
        body,
    )


class PolicyName(NamedTuple):
    """What the seeds of one row of the policies' table have in common."""

    labels: str
    """Where the labelled episodes are from."""
    videos: Videos
    """What it learned from before."""
    arm: str
    """`lapa`, `actionvla`, `scratch`, `vpt`, `unipi`, `openvla`, `lapa_paper`."""
    decoder: str
    """`head`, `table`, or `video plan`."""
    settings: str
    """What sets a table apart from other tables."""
    way: str
    """`sampled` or `greedy`."""


Policies = dict[PolicyName, dict[int, list[dict[str, Any]]]]
"""Name -> number of labelled episodes -> the seeds' rows, whose figures are of that way of decoding."""


def group_policies(rows: Iterable[dict[str, Any]]) -> Policies:
    """Return the finetuned policies' rows, of `latest_rows`, by what they have in common."""
    groups: Policies = {}
    for row in rows:
        kind, *rest = row["cell"].split("/")
        if kind in ("finetune", "table"):
            decoder = _decoder(kind, rest[1], row["key"])
            ways = {"sampled": row}
            if "greedy" in row["figures"]:
                ways["greedy"] = {**row, "figures": row["figures"]["greedy"]}
            for way, figures in ways.items():
                name = PolicyName(row["key"]["labels"], Videos.of(row), rest[1], *decoder, way)
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
            name.labels,
            str(name.videos),
            name.arm,
            f"{name.decoder}{name.settings}, {name.way}",
            *(
                _success_text(group[count]) + f" ({len(group[count])})" if count in group else "-"
                for count in counts
            ),
        ]
        for name, group in sorted(groups.items())
    ]
    head = ["labels from", "videos", "arm", "decoder", *(f"{count} labels" for count in counts)]
    return _table("Success in the default domain [%], mean and standard error (seeds)", head, body)
