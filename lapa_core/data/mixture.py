# SPDX-License-Identifier: Apache-2.0
"""Several corpora in one training run: a YAML file with a weight and a frame gap in seconds for each.

    corpora:
      - data: bridge_index     # an index of `lapa data index`, or a data folder; relative to this file
        weight: 2.0            # share of the pairs, relative to the others (default 1)
        gap_s: 0.6             # robots
      - data: people_index
        gap_s: 2.4             # people move more slowly than 10 Hz robots are recorded
        instructions: people.jsonl   # instead of the index's own texts
        gap_max_s: 3.0         # draw each pair's gap between gap_s and this
        min_motion: 1.5        # leave out clips that hardly move; needs an index made with --motion

Loaded strictly: an unknown, missing or doubled field is an error that names its line. Imports numpy and PyYAML.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lapa_core.data.clip_index import ClipIndex
from lapa_core.data.index import open_index_or_scan
from lapa_core.data.instructions import read_instructions
from lapa_core.errors import DataError

SUFFIXES = (".yaml", ".yml")
_FIELDS = {
    "data": str,
    "weight": float,
    "gap_s": float,
    "gap_max_s": float,
    "instructions": str,
    "min_motion": float,
}
_NEEDED = ("data", "gap_s")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """One entry of a mixture file."""

    data: Path
    """Index, or data folder."""
    gap_s: float
    """Time between the frames of a pair [s]."""
    gap_max_s: float | None = None
    """Longest gap, where each pair's is drawn uniformly from `gap_s` on [s]; None draws none."""
    weight: float = 1.0
    """Share of the pairs, relative to the other corpora."""
    instructions: Path | None = None
    """File with a text per clip that takes the place of the index's own."""
    min_motion: float = 0.0
    """Least `Clip.motion` of a clip that is used [grey levels]; 0 uses all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """One opened entry: clips with their texts, and how they are used."""

    index: ClipIndex
    """Clips that are used."""
    gap_s: float
    """Time between the frames of a pair [s]."""
    weight: float = 1.0
    """Share of the pairs, relative to the other corpora."""
    gap_max_s: float | None = None
    """Longest gap, where each pair's is drawn uniformly from `gap_s` on [s]; None draws none."""

    def __post_init__(self) -> None:
        if self.gap_max_s is not None and not self.gap_max_s >= self.gap_s > 0:
            raise DataError(
                f"gaps run from {self.gap_s} to {self.gap_max_s} s; the longest must not be below the shortest"
            )


def load_mixture(path: str | Path) -> tuple[CorpusConfig, ...]:
    """Read a mixture file.

    Raises:
        DataError: no YAML, or a field that is unknown, doubled, missing or of the wrong type; names the line.
    """
    path = Path(path)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as a mixture ({error})") from error
    if root is None:
        raise DataError(f"{path} is empty; a list `corpora` is needed")
    fields = _mapping(path, root, {"corpora"})
    if "corpora" not in fields:
        raise DataError(f"{path}: the list `corpora` is missing")
    entries = fields["corpora"]
    if not isinstance(entries, yaml.SequenceNode) or not entries.value:
        raise _wrong(path, entries, "corpora", "a list of at least one corpus")
    return tuple(_corpus(path, node) for node in entries.value)


def open_corpus(config: CorpusConfig) -> Corpus:
    """Open the index of one entry, put in its texts and leave out what hardly moves.

    Raises:
        DataError: the index cannot be opened, its motion was not measured, or no clip moves enough.
    """
    index = open_index_or_scan(config.data)
    if config.instructions is not None:
        names = {clip.id for clip in index.clips}
        texts = read_instructions(index.root, names, config.instructions)
        clips = tuple(replace(clip, instruction=texts.get(clip.id, "")) for clip in index.clips)
        index = replace(index, clips=clips)
    if config.min_motion:
        index = _moving(config, index)
    return Corpus(index=index, gap_s=config.gap_s, weight=config.weight, gap_max_s=config.gap_max_s)


def _moving(config: CorpusConfig, index: ClipIndex) -> ClipIndex:
    if any(clip.motion is None for clip in index.clips):
        raise DataError(
            f"{config.data}: min_motion is {config.min_motion}, but motion was not measured; "
            "run `lapa data index --motion`"
        )
    clips = tuple(c for c in index.clips if c.motion is not None and c.motion >= config.min_motion)
    if not clips:
        most = max(c.motion for c in index.clips if c.motion is not None)
        raise DataError(
            f"{config.data}: no clip moves by {config.min_motion}; the liveliest one moves by {most:.2f}"
        )
    return replace(index, clips=clips)


def _corpus(path: Path, node: yaml.Node) -> CorpusConfig:
    fields = _mapping(path, node, set(_FIELDS))
    missing = [name for name in _NEEDED if name not in fields]
    if missing:
        raise DataError(
            f"{path} line {node.start_mark.line + 1}: the corpus has no {' and no '.join(missing)}"
        )
    values: dict[str, Any] = {name: _scalar(path, name, fields[name]) for name in fields}
    values = {name: value for name, value in values.items() if value is not None}
    for name in ("data", "instructions"):
        if name in values:
            values[name] = path.parent / values[name]
    return CorpusConfig(**values)


def _mapping(path: Path, node: yaml.Node, allowed: set[str]) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(path, node, "the entry", f"a mapping with {sorted(allowed)}")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = str(key.value)
        if name not in allowed or name in found:
            what = "given twice" if name in found else f"unknown; allowed are {sorted(allowed)}"
            raise DataError(f"{path} line {key.start_mark.line + 1}: {name} is {what}")
        found[name] = value
    return found


def _scalar(path: Path, name: str, node: yaml.Node) -> str | float | None:
    """Return a value of the field's type; null only for `instructions`."""
    value = yaml.safe_load(yaml.serialize(node)) if isinstance(node, yaml.ScalarNode) else node
    if name == "instructions" and value is None:
        return None
    if _FIELDS[name] is str:
        if not isinstance(value, str) or not value:
            raise _wrong(path, node, name, "a path")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(path, node, name, "a number")
    least_allowed = value >= 0 if name == "min_motion" else value > 0
    if not least_allowed or value == float("inf"):
        raise _wrong(path, node, name, "a positive number")
    return float(value)


def _wrong(path: Path, node: yaml.Node, name: str, needed: str) -> DataError:
    shown = node.value if isinstance(node, yaml.ScalarNode) else f"a {node.id}"
    return DataError(
        f"{path} line {node.start_mark.line + 1}: {name} is {shown!r}; {needed} is needed"
    )
