# SPDX-License-Identifier: Apache-2.0
"""The parquet files that a LeRobot writer is filling: rows of frames and rows of episodes.

A few episodes share one file of each kind. The file is rewritten whole, beside its place, for every
one of them: that is safe against a crash and cheap, and a set of thousands of episodes still opens
quickly, which one file each would prevent. Imports pyarrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lapa_core.data import lerobot_format as fmt
from lapa_core.data.stats import FeatureStats, aggregate, from_json, to_json

_EPISODES_PER_FILE = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class TableGroup:
    """The episodes of the parquet files that are still being filled; adding one makes a new group."""

    number: int = 0
    """Which pair of files, counted over the whole data set."""
    data: tuple[pa.Table, ...] = ()
    """Frame rows of each episode."""
    rows: tuple[dict[str, Any], ...] = ()
    """Episode row of each episode."""

    @classmethod
    def read(cls, path: Path, num_episodes: int) -> TableGroup:
        """Read back the last group of a data set, without what a killed writer had not yet counted."""
        if not num_episodes:
            return cls()
        group = cls(number=(num_episodes - 1) // _EPISODES_PER_FILE)
        rows = fmt.read_parquet(path / group._name(fmt.EPISODES_TEMPLATE)).to_pylist()
        rows = [row for row in rows if row["episode_index"] < num_episodes]
        data = fmt.read_parquet(path / group._name(fmt.DATA_TEMPLATE))
        first = rows[0]["dataset_from_index"]
        tables = [data.slice(row["dataset_from_index"] - first, row["length"]) for row in rows]
        return cls(number=group.number, data=tuple(tables), rows=tuple(rows))

    def appended(
        self, data: pa.Table, row: Mapping[str, Any], stats: Mapping[str, FeatureStats]
    ) -> TableGroup:
        """Return this group, or the next one when it is full, with one more episode."""
        full = len(self.rows) == _EPISODES_PER_FILE
        group = TableGroup(number=self.number + 1) if full else self
        chunk, file = divmod(group.number, fmt.FILES_PER_CHUNK)
        place: dict[str, Any] = {}
        for prefix in ("data", "meta/episodes"):
            place[f"{prefix}/chunk_index"], place[f"{prefix}/file_index"] = chunk, file
        columns = {
            f"stats/{name}/{key}": value
            for name, entry in to_json(stats).items()
            for key, value in entry.items()
        }
        return TableGroup(
            number=group.number,
            data=(*group.data, data),
            rows=(*group.rows, {**row, **place, **columns}),
        )

    def write(self, path: Path) -> None:
        """Replace both files of the group."""
        episodes = [pa.Table.from_pylist(list(self.rows))]
        fmt.replace_file(path / self._name(fmt.DATA_TEMPLATE), fmt.parquet_bytes(self.data))
        fmt.replace_file(path / self._name(fmt.EPISODES_TEMPLATE), fmt.parquet_bytes(episodes))

    def remove_next(self, path: Path) -> None:
        """Delete the files of the next group: nothing in them was counted."""
        following = TableGroup(number=self.number + 1 if self.rows else self.number)
        for template in (fmt.DATA_TEMPLATE, fmt.EPISODES_TEMPLATE):
            (path / following._name(template)).unlink(missing_ok=True)

    def _name(self, template: str) -> str:
        chunk, file = divmod(self.number, fmt.FILES_PER_CHUNK)
        return template.format(chunk_index=chunk, file_index=file)


def stored_stats(path: Path, num_episodes: int) -> dict[str, FeatureStats]:
    """Aggregate the statistics of the counted episodes (`stats.json` may hold one more)."""
    total: dict[str, FeatureStats] = {}
    for file in sorted(path.glob(fmt.EPISODES_GLOB)):
        for row in fmt.read_parquet(file).to_pylist():
            if row["episode_index"] < num_episodes:
                total = aggregate(total, row_stats(row))
    return total


def row_stats(row: Mapping[str, Any]) -> dict[str, FeatureStats]:
    """Return the statistics kept in the columns of an episode row, by feature."""
    nested: dict[str, dict[str, Any]] = {}
    for column, value in row.items():
        if column.startswith("stats/") and value is not None:
            name, key = column.removeprefix("stats/").rsplit("/", 1)
            nested.setdefault(name, {})[key] = value
    return from_json(nested)
