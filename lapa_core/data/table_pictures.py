# SPDX-License-Identifier: Apache-2.0
"""Chosen pictures of an episode of a LeRobot set whose pictures lie in its tables.

Of a file only the row groups with a wanted picture are read, and of these only the pictures. A process keeps where the
episodes of a file lie, and the row groups that it used last, still encoded. Imports numpy, pyarrow and Pillow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapa_core.data import lerobot_format as fmt
from lapa_core.data.kept import Kept
from lapa_core.data.lerobot_reader import decode_cell
from lapa_core.errors import DataError

KEPT_BYTES = 64 * 2**20
"""Memory of a process for encoded pictures [bytes]."""
_KEPT_FILES = 1024
_EPISODE = "episode_index"

_row_groups: Kept[pa.ChunkedArray] = Kept(KEPT_BYTES, lambda column: column.nbytes)


class _Places(NamedTuple):
    """What lies where in a file of N rows and G row groups."""

    version: tuple[int, int]
    """Time of change [ns] and size [bytes] of the file that this is true of."""
    columns: frozenset[str]
    """Names."""
    episodes_N: NDArray[np.int64]
    """Episode of each row."""
    edges: NDArray[np.int64]
    """(G + 1,) first row of each row group, and N at the end."""


def read_table_pictures(
    path: Path, episode: int, camera: str, numbers: Sequence[int], num_frames: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures of an episode as RGB (H, W, 3).

    Args:
        path: table of the data set that holds the episode's rows.
        episode: number of the episode.
        camera: full name of the feature that holds the pictures.
        numbers: wanted pictures, counted from the episode's first.
        num_frames: how many pictures the episode should have.

    Raises:
        DataError: the file is missing or damaged, or the episode is not what it should be.
    """
    places, rows = _episode(path, episode, camera, num_frames)
    root = _root(path)
    for number in numbers:
        row = int(rows[number])
        group = int(np.searchsorted(places.edges, row, side="right")) - 1
        read = partial(_read_group, path, group, camera)
        column = _row_groups.get((path, places.version, camera, group), read)
        cell = column[row - int(places.edges[group])].as_py()
        yield decode_cell(root, cell, f"{path}: picture {number} of episode {episode}")


def check_episode(path: Path, episode: int, camera: str, num_frames: int) -> None:
    """Raise DataError where a table does not hold the rows of an episode, or not this camera; none is decoded."""
    _episode(path, episode, camera, num_frames)


def _episode(
    path: Path, episode: int, camera: str, num_frames: int
) -> tuple[_Places, NDArray[np.int64]]:
    """Return where rows lie, and which are the episode's."""
    try:
        state = path.stat()
        places = _places(path, (state.st_mtime_ns, state.st_size))
    except fmt.PARQUET_DAMAGE as error:
        raise _unreadable(path, error) from error
    if missing := {camera, _EPISODE} - places.columns:
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}; write the set again")
    rows = np.flatnonzero(places.episodes_N == episode)
    if len(rows) != num_frames or rows[-1] - rows[0] + 1 != num_frames:
        raise DataError(
            f"{path} has {len(rows)} rows of episode {episode}, {num_frames} in one piece are needed; run "
            "`lapa data doctor`, and `lapa data index` again where the set was changed"
        )
    return places, rows


@lru_cache(maxsize=_KEPT_FILES)
def _places(path: Path, version: tuple[int, int]) -> _Places:
    with fmt.open_parquet(path) as file:
        columns = frozenset(file.schema_arrow.names)
        lengths = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        episodes = np.zeros(0, np.int64)
        if _EPISODE in columns:
            episodes = file.read(columns=[_EPISODE])[_EPISODE].to_numpy()
    return _Places(version, columns, episodes, np.cumsum([0, *lengths]))


def _read_group(path: Path, group: int, camera: str) -> pa.ChunkedArray:
    try:
        with fmt.open_parquet(path) as file:
            return file.read_row_group(group, columns=[camera])[camera]
    except fmt.PARQUET_DAMAGE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({error}); copy it again")


def _root(path: Path) -> Path:
    """Return the folder of the data set, to which the paths in its cells are relative."""
    return next((p for p in path.parents if (p / fmt.INFO_PATH).is_file()), path.parent)
