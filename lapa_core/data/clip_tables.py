# SPDX-License-Identifier: Apache-2.0
"""The tables of an index: `clips.parquet`, a row per clip, and `pts.parquet`, the time of every frame.

Imports numpy and pyarrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lapa_core.data.clip import Clip
from lapa_core.errors import DataError

CLIPS_NAME = "clips.parquet"
PTS_NAME = "pts.parquet"

_CLIPS = pa.schema(
    [
        ("id", pa.string()), ("kind", pa.string()), ("path", pa.string()), ("address", pa.string()),
        ("stored", pa.bool_()), ("size_bytes", pa.int64()), ("hash", pa.string()), ("fps", pa.float64()),
        ("frames", pa.int32()), ("duration_s", pa.float64()), ("instruction", pa.string()),
        ("first_pts", pa.int64()), ("last_pts", pa.int64()), ("time_base_num", pa.int64()),
        ("time_base_den", pa.int64()), ("keyframes", pa.list_(pa.int32())), ("motion", pa.float32()),
    ]
)  # fmt: skip
_PTS = pa.schema([("id", pa.string()), ("pts", pa.list_(pa.int64()))])


def write_tables(folder: Path, clips: Sequence[Clip]) -> None:
    """Write both tables; each replaces an older one only when it is whole."""
    rows = [_row(clip) for clip in clips]
    columns = {name: [row[name] for row in rows] for name in _CLIPS.names}
    _write(folder / CLIPS_NAME, pa.table(columns, schema=_CLIPS))
    offsets = pa.array(np.cumsum([0, *(len(clip) for clip in clips)]), pa.int32())
    ticks = np.concatenate([clip.pts for clip in clips]) if clips else np.zeros(0, np.int64)
    lists = pa.ListArray.from_arrays(offsets, pa.array(ticks, pa.int64()))
    _write(
        folder / PTS_NAME,
        pa.table({"id": [clip.id for clip in clips], "pts": lists}, schema=_PTS),
    )


def read_tables(folder: Path) -> list[Clip]:
    """Read the clips that `write_tables` wrote.

    Raises:
        DataError: a table is missing, damaged, or of another version, or the two do not belong together.
    """
    try:
        table, times = pq.read_table(folder / CLIPS_NAME), pq.read_table(folder / PTS_NAME)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{folder} cannot be read as an index ({error}); run `lapa data index` again"
        ) from error
    if not (table.schema.equals(_CLIPS) and times.schema.equals(_PTS)):
        raise DataError(f"{folder}: the index has other columns; run `lapa data index` again")
    if not table["id"].equals(times["id"]):
        raise DataError(f"{folder}: {PTS_NAME} is of another scan; run `lapa data index` again")
    pts, keyframes = _lists(times["pts"]), _lists(table["keyframes"])
    plain = table.drop_columns(["keyframes"]).to_pylist()
    return [_clip(number, row, pts[number], keyframes[number]) for number, row in enumerate(plain)]


def _row(clip: Clip) -> dict[str, Any]:
    names = (
        "id", "kind", "path", "address", "stored", "size_bytes", "hash", "fps", "instruction", "motion",
    )  # fmt: skip
    return {
        **{name: getattr(clip, name) for name in names},
        "frames": len(clip), "duration_s": clip.duration_s,
        "first_pts": int(clip.pts[0]), "last_pts": int(clip.pts[-1]),
        "time_base_num": clip.time_base.numerator, "time_base_den": clip.time_base.denominator,
        "keyframes": clip.keyframes,
    }  # fmt: skip


def _clip(
    number: int, row: dict[str, Any], pts: NDArray[np.int64], keyframes: NDArray[np.int32]
) -> Clip:
    derived = ("frames", "duration_s", "first_pts", "last_pts", "time_base_num", "time_base_den")
    base = Fraction(row["time_base_num"], row["time_base_den"])
    fields = {name: value for name, value in row.items() if name not in derived}
    return Clip(number=number, pts=pts, keyframes=keyframes, time_base=base, **fields)


def _lists(column: pa.ChunkedArray) -> list[NDArray]:
    """Return one array per row, views of one array."""
    whole = column.combine_chunks()
    values, offsets = whole.flatten().to_numpy(), whole.offsets.to_numpy()
    offsets = offsets - offsets[0] if len(offsets) else offsets
    return [values[a:b] for a, b in pairwise(offsets)]


def _write(path: Path, table: pa.Table) -> None:
    fresh = path.with_name(f".{path.name}")
    pq.write_table(table, fresh, compression="zstd")
    fresh.replace(path)
