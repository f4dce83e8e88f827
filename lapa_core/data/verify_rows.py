# SPDX-License-Identifier: Apache-2.0
"""Check the rows of a LeRobot v3 data set: columns, indices, times, numbers, and the statistics of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapa_core.data import lerobot_format as fmt
from lapa_core.data.lerobot_reader import decode_cell
from lapa_core.data.lerobot_tables import row_stats
from lapa_core.data.stats import QUANTILES, FeatureStats, aggregate, numeric_stats
from lapa_core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class RowsChecked:
    """What `check_rows` found."""

    problems: list[str]
    """Every fault, a sentence each."""
    num_rows: int
    """Rows in the data files."""


def check_rows(
    path: Path,
    info: dict[str, Any],
    tasks: Sequence[str],
    episodes: Sequence[dict[str, Any]],
    *,
    decode: bool = True,
) -> RowsChecked:
    """Compare every data file with the episodes that point to it, and `stats.json` with the rows.

    Args:
        path: folder of the data set.
        info: content of `info.json`.
        tasks: instruction of each task_index.
        episodes: rows of the episode table.
        decode: decode the pictures of sets that keep them in the tables.
    """
    checker = _RowChecker(path, info, tasks, episodes, decode)
    checker.run()
    return RowsChecked(problems=checker.problems, num_rows=checker.num_rows)


class _RowChecker:
    """Collects problems while it walks over the data files."""

    def __init__(
        self,
        path: Path,
        info: dict[str, Any],
        tasks: Sequence[str],
        episodes: Sequence[dict[str, Any]],
        decode: bool,
    ) -> None:
        self.path, self.info, self.tasks, self.episodes = path, info, tasks, episodes
        self.decode = decode
        self.ours = fmt.OWN_KEY in info
        self.features: fmt.Features = info["features"]
        self.problems: list[str] = []
        self.num_rows = 0
        self.complete = True  # every episode's rows went into the statistics

    def run(self) -> None:
        by_file: dict[Path, list[dict[str, Any]]] = defaultdict(list)
        for row in self.episodes:
            name = self.info["data_path"].format(
                chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
            )
            by_file[self.path / name].append(row)
        for stray in sorted(set(self.path.glob("data/*/*.parquet")) - set(by_file)):
            self.problems.append(
                f"{stray.relative_to(self.path)} belongs to no episode, yet loaders read it"
            )
        total: dict[str, FeatureStats] = {}
        for file, rows in by_file.items():
            try:
                table = fmt.read_parquet(file)
            except DataError as error:
                self.problems.append(str(error))
                self.complete = False
                continue
            total = self._check_table(file.relative_to(self.path).as_posix(), table, rows, total)
        self._check_stats(total)

    def _check_table(
        self,
        name: str,
        table: pa.Table,
        rows: list[dict[str, Any]],
        total: dict[str, FeatureStats],
    ) -> dict[str, FeatureStats]:
        """Check one data file; return the statistics with those of its episodes added."""
        wanted = {n for n, f in self.features.items() if f["dtype"] != "video"}
        if set(table.column_names) != wanted:
            missing, extra = wanted - set(table.column_names), set(table.column_names) - wanted
            self.problems.append(
                f"{name}: columns {sorted(missing)} are missing, {sorted(extra)} too many"
            )
        columns = {}
        for column in sorted(wanted & set(table.column_names)):
            feature = self.features[column]
            if feature["dtype"] == "image" and self.decode:
                self._check_pictures(name, column, table[column])
            if feature["dtype"] in fmt.NOT_NUMBERS:
                continue
            try:
                columns[column] = fmt.column_to_numpy(table[column], feature)
            except DataError as error:
                self.problems.append(f"{name}: column {column}: {error}")
        if not columns.keys() >= fmt.AUTO_FEATURES.keys():
            return total
        self.num_rows += table.num_rows
        known = np.isin(columns["episode_index"], [row["episode_index"] for row in rows])
        if not known.all():
            self.problems.append(f"{name}: {(~known).sum()} rows belong to no episode of this file")
        for row in rows:
            mine = columns["episode_index"] == row["episode_index"]
            own = {column: values[mine] for column, values in columns.items()}
            if self._check_episode_rows(name, row, own):
                total = aggregate(total, {column: numeric_stats(v) for column, v in own.items()})
            else:
                self.complete = False
        return total

    def _check_pictures(self, name: str, column: str, cells: pa.ChunkedArray) -> None:
        """Decode every picture of a column."""
        height, width = fmt.picture_size(self.features[column]["shape"])
        for number, cell in enumerate(cells):
            label = f"{name}: {column} row {number}"
            try:
                shape = decode_cell(self.path, cell.as_py(), label).shape
            except DataError as error:
                self.problems.append(str(error))
                continue
            if shape != (height, width, 3):
                self.problems.append(
                    f"{label} has shape {shape}; info.json says {(height, width, 3)}"
                )

    def _check_episode_rows(self, name: str, row: dict[str, Any], own: dict[str, NDArray]) -> bool:
        """Check the rows of one episode; False when they can have no statistics."""
        label, length = f"{name}: episode {row['episode_index']}", row["length"]
        count = len(own["index"])
        if count != length or not length:
            self.problems.append(f"{label} has {count} rows, its table says {length}")
            return False
        steps = np.arange(length)
        if (own["frame_index"] != steps).any():
            self.problems.append(f"{label}: frame_index does not count 0 to {length - 1}")
        if (own["index"] != row["dataset_from_index"] + steps).any():
            self.problems.append(
                f"{label}: index does not count up from {row['dataset_from_index']}"
            )
        late_s = np.abs(own["timestamp"] - steps / self.info["fps"])
        if not late_s.max() <= fmt.TIMESTAMP_TOLERANCE_S:
            self.problems.append(
                f"{label}: timestamp differs from frame_index / fps by up to {late_s.max():.4f} s; the "
                "rate is wrong, or true times were stored here (use observation.capture_time)"
            )
        tasks = [
            self.tasks[i] if 0 <= i < len(self.tasks) else None for i in set(own["task_index"])
        ]
        if not set(tasks) <= set(row["tasks"]):
            self.problems.append(
                f"{label}: task_index stands for {tasks}, the episode's tasks are {row['tasks']}"
            )
        finite = True
        for column, values in own.items():
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                finite = False
                bad = int(np.flatnonzero(~np.isfinite(values.reshape(length, -1)).all(axis=1))[0])
                self.problems.append(f"{label}: {column} is not finite in row {bad}")
        return finite

    def _check_stats(self, total: dict[str, FeatureStats]) -> None:
        file = self.path / fmt.STATS_PATH
        if not file.is_file():
            if self.episodes:
                self.problems.append(
                    f"{fmt.STATS_PATH} is missing; loaders then normalise with nothing"
                )
            return
        stored = self._stored_stats(file)
        keys = ["min", "max", "mean", "std", "count"]
        if self.ours:  # other tools approximate quantiles, each in its own way
            keys += QUANTILES
            total = {**total, **self._picture_stats()}
        expected = set(total) | set(fmt.camera_keys(self.features)) if self.episodes else set()
        for name in sorted(expected - set(stored)):
            self.problems.append(f"{fmt.STATS_PATH} has nothing on {name}")
        for name in sorted(set(total) & set(stored)) if self.complete else ():
            for key in keys:
                # float32 columns were summed in another order by other tools.
                found = np.ravel(stored[name].get(key, np.zeros(0)))
                needed = np.ravel(total[name][key])
                scale = np.abs(needed) + np.abs(np.ravel(total[name]["std"])) + 1e-6
                same = found.size == needed.size
                if not same or not (np.abs(found - needed) <= 1e-3 * scale).all():
                    self.problems.append(
                        f"{fmt.STATS_PATH}: {key} of {name} is {found[:7].round(4).tolist()}; "
                        f"the rows give {needed[:7].round(4).tolist()}"
                    )

    def _picture_stats(self) -> dict[str, FeatureStats]:
        """Add up the statistics of pictures that the episodes' own rows have."""
        total: dict[str, FeatureStats] = {}
        for row in self.episodes:
            own = row_stats(row)
            cameras = set(own) & set(fmt.camera_keys(self.features))
            total = aggregate(total, {name: own[name] for name in cameras})
        return total

    def _stored_stats(self, file: Path) -> dict[str, FeatureStats]:
        """Read `stats.json`; what is no number in it is a problem."""
        stored: dict[str, FeatureStats] = {}
        for name, entry in fmt.read_json(file).items():
            try:
                stored[name] = {
                    key: np.asarray(value, dtype=np.float64) for key, value in entry.items()
                }
            except (AttributeError, TypeError, ValueError):
                self.problems.append(f"{fmt.STATS_PATH}: {name} holds something else than numbers")
        return stored
