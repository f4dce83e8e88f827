# SPDX-License-Identifier: Apache-2.0
"""The LeRobot v3.0 layout on disk: names, features, tables.

Imports numpy and pyarrow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lapa_core.data.video import VideoQuality
from lapa_core.errors import DataError
from lapa_core.paths import sync

VERSION = "v3.0"
INFO_PATH = Path("meta/info.json")
STATS_PATH = Path("meta/stats.json")
TASKS_PATH = Path("meta/tasks.parquet")
EPISODES_GLOB = "meta/episodes/*/*.parquet"
EPISODES_TEMPLATE = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_TEMPLATE = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_TEMPLATE = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_PER_CHUNK = 1000
TIMESTAMP_TOLERANCE_S = 1e-4

CAMERA_PREFIX = "observation.images."
ACTION = "action"
STATE = "observation.state"
CAPTURE_TIME = "observation.capture_time"
OWN_KEY = "lapa"
"""Key of `info.json` under which this project keeps its own facts (contract hash, provenance)."""

PROVENANCE = "provenance"
"""Key of our facts that says what made the data set: command, commit, date."""
STATE_NAMES = ("x", "y", "z", "rx", "ry", "rz", "gripper")
"""A measured pose: position [m], rotation vector [rad], gripper opening."""

AUTO_FEATURES: dict[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}

Features = dict[str, dict[str, Any]]

NOT_NUMBERS = ("video", "image", "string", "language")
"""Types of features that are no numpy type."""

PARQUET_DAMAGE = (OSError, pa.ArrowException, UnicodeDecodeError)
"""What pyarrow raises on a file that is missing or damaged; the last on a name in it."""


def make_features(
    cameras: Mapping[str, tuple[int, int]],
    *,
    action_names: Sequence[str] | None = None,
    state_names: Sequence[str] | None = None,
    extra: Mapping[str, tuple[str, int]] | None = None,
) -> Features:
    """Describe the features of a data set.

    Args:
        cameras: short name (`front`) to (height, width) [px].
        action_names: name of each number of `action`; None when the set has no actions.
        state_names: the same for `observation.state`.
        extra: further numeric features, name to (numpy dtype, numbers per row).

    Raises:
        DataError: no camera, or a name that the format's own tools would trip over.
    """
    if not cameras:
        raise DataError("a data set needs at least one camera; give its name and (height, width)")
    features: Features = {}
    for name, (height, width) in cameras.items():
        features[CAMERA_PREFIX + name] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
        }
    for name, names in ((ACTION, action_names), (STATE, state_names)):
        if names is not None:
            features[name] = {"dtype": "float32", "shape": [len(names)], "names": list(names)}
    for name, (dtype, size) in (extra or {}).items():
        if "image" in name or "/" in name or name in AUTO_FEATURES or name in features:
            raise DataError(
                f"feature name {name!r} cannot be used: '/' and 'image' break the format's tools, "
                f"and {sorted(AUTO_FEATURES)} are written by themselves"
            )
        features[name] = {"dtype": np.dtype(dtype).name, "shape": [size], "names": None}
    return features


def video_info(shape: list[int], fps: int, quality: VideoQuality) -> dict[str, Any]:
    """Describe a video feature as the format's own tools do."""
    return {
        "video.height": shape[0],
        "video.width": shape[1],
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
        "video.is_depth_map": False,
        "video.g": quality.group_of_pictures,
        "video.crf": quality.crf,
        "video.preset": quality.preset,
    }


def camera_keys(features: Features) -> list[str]:
    """Names of the features that hold pictures, in the order of `info.json`."""
    return [name for name, feature in features.items() if feature["dtype"] in ("video", "image")]


def picture_size(shape: Sequence[int]) -> tuple[int, int]:
    """Return (height, width) [px] of a feature's shape; some tools write the channels first."""
    height, width = shape[1:] if shape[0] == 3 else shape[:2]
    return height, width


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that at every instant either the old or the new one is whole on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    commit_file(temporary, path)


def commit_file(temporary: Path, path: Path) -> None:
    """Rename a finished file to its name and make the rename itself durable."""
    os.replace(temporary, path)
    sync(path.parent)


def parquet_bytes(tables: Iterable[pa.Table]) -> bytes:
    """Serialise tables of one schema to one parquet file, one row group each."""
    sink = pa.BufferOutputStream()
    writer = None
    for table in tables:
        if writer is None:
            writer = pq.ParquetWriter(
                sink, table.schema, compression="snappy", write_page_checksum=True
            )
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return sink.getvalue().to_pybytes()


def json_bytes(value: Any) -> bytes:
    """Serialise a metadata file."""
    return (json.dumps(value, indent=2) + "\n").encode()


def data_table(columns: Mapping[str, NDArray], features: Features) -> pa.Table:
    """Build the rows of an episode: scalar columns for shape [1], fixed size lists for [n]."""
    arrays, names = [], []
    for name, feature in features.items():
        if feature["dtype"] in ("video", "image"):
            continue
        values = np.ascontiguousarray(columns[name], dtype=feature["dtype"])
        size = int(np.prod(feature["shape"]))
        flat = pa.array(values.reshape(-1))
        is_list = list(feature["shape"]) != [1]
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, size) if is_list else flat)
        names.append(name)
    return pa.table(arrays, names=names)


def column_to_numpy(column: pa.ChunkedArray, feature: Mapping[str, Any]) -> NDArray:
    """Return the rows of a numeric feature: (T,) for shape [1], (T, n) for any other.

    Raises:
        DataError: a row is empty or of another size than the feature's shape.
    """
    array = column.combine_chunks()
    shape = list(feature["shape"])
    nested = pa.types.is_nested(array.type)
    if nested == (shape == [1]):
        raise DataError(f"it holds {array.type}; rows of shape {shape} are needed")
    while pa.types.is_nested(array.type):
        if array.null_count:
            raise DataError(f"{array.null_count} rows are empty; fill them or drop the episode")
        array = array.flatten()
    if array.null_count or len(array) != int(np.prod(shape)) * len(column):
        raise DataError(f"{len(column)} rows hold {len(array)} numbers; shape {shape} is needed")
    values = array.to_numpy(zero_copy_only=False).astype(feature["dtype"], copy=False)
    return values.reshape(len(column), -1) if nested else values


def parse_json(text: bytes | str) -> dict[str, Any]:
    """Parse an object inside other metadata; an empty one where it is no object."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def tasks_table(instructions: Sequence[str]) -> pa.Table:
    """Build `tasks.parquet`; the text is the pandas index, else the format's tools see a number."""
    table = pa.table(
        {
            "task_index": pa.array(range(len(instructions)), pa.int64()),
            "task": pa.array(list(instructions), pa.string()),
        }
    )
    column = {"field_name": "task_index", "name": "task_index", "pandas_type": "int64"}
    index = {"field_name": "task", "name": "task", "pandas_type": "unicode"}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {**column, "numpy_type": "int64", "metadata": None},
            {**index, "numpy_type": "object", "metadata": None},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def read_json(path: Path) -> dict[str, Any]:
    """Read a metadata file.

    Raises:
        DataError: it is missing, no JSON, or no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); a LeRobot v3 set needs it: copy it again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a {type(value).__name__}; an object is needed")
    return value


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file to be read with its checksums; this and the reading may raise `PARQUET_DAMAGE`."""
    return pq.ParquetFile(path, page_checksum_verification=True)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet file, or raise DataError when it is missing or damaged."""
    try:
        with open_parquet(path) as file:
            return file.read(columns=list(columns) if columns else None)
    except PARQUET_DAMAGE as error:
        raise DataError(
            f"{path} cannot be read ({error}); it is missing, damaged, or its writer was killed: "
            "copy it again or leave its episodes out"
        ) from error


def read_tasks(path: Path) -> list[str]:
    """Return the instruction of each task_index.

    Raises:
        DataError: the text column is missing or the indices are not 0..n-1.
    """
    table = read_parquet(path)
    text = [
        f.name
        for f in table.schema
        if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
    ]
    if len(text) != 1 or "task_index" not in table.column_names:
        raise DataError(
            f"{path} has columns {table.column_names}; task_index and one text column are needed"
        )
    indices = table["task_index"].to_pylist()
    if indices != list(range(len(indices))):
        raise DataError(f"{path}: task_index is {indices[:8]}...; 0, 1, 2 ... in order is needed")
    return table[text[0]].to_pylist()


def read_info(path: Path) -> dict[str, Any]:
    """Read `meta/info.json` of the data set in `path` and check what every reader relies on."""
    info = read_json(path / INFO_PATH)
    where = path / INFO_PATH
    if info.get("codebase_version") != VERSION:
        raise DataError(
            f"{where}: codebase_version is {info.get('codebase_version')!r}; only {VERSION!r} is "
            "read: convert older sets with lerobot's own converter"
        )
    needed = ("fps", "features", "total_episodes", "total_frames", "data_path")
    missing = [key for key in needed if key not in info]
    if missing:
        raise DataError(f"{where} lacks {missing}; {list(needed)} are needed")
    if not isinstance(info["fps"], (int, float)) or not info["fps"] > 0:
        raise DataError(f"{where}: fps is {info['fps']!r}; a positive number is needed")
    for key in ("total_episodes", "total_frames"):
        if type(info[key]) is not int or info[key] < 0:
            raise DataError(f"{where}: {key} is {info[key]!r}; a count is needed")
    _check_features(where, info["features"])
    _check_template(where, "data_path", info["data_path"])
    if info.get("video_path") is not None:
        _check_template(where, "video_path", info["video_path"])
    if not camera_keys(info["features"]):
        raise DataError(f"{where}: features name no camera (dtype video or image)")
    return info


def _check_features(where: Path, features: Any) -> None:
    """Refuse features without a type and a shape that can be read."""
    if not isinstance(features, dict):
        raise DataError(f"{where}: features are {features!r}; an object is needed")
    for name, feature in features.items():
        dtype, shape = (
            feature.get(key) if isinstance(feature, dict) else None for key in ("dtype", "shape")
        )
        sizes = shape if isinstance(shape, list) and shape else [0]
        num_axes = 3 if dtype in ("video", "image") else len(sizes)
        whole = all(type(size) is int and size > 0 for size in sizes)
        if not (_is_type(dtype) and whole and len(sizes) == num_axes):
            raise DataError(
                f"{where}: feature {name} has dtype {dtype!r} and shape {shape!r}; a numpy type or one of "
                f"{list(NOT_NUMBERS)} and whole sizes are needed, three of them for pictures"
            )


def _is_type(dtype: Any) -> bool:
    if dtype in NOT_NUMBERS:
        return True
    try:
        return isinstance(dtype, str) and np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False


def _check_template(where: Path, key: str, template: Any) -> None:
    try:
        _ = template.format(video_key="camera", chunk_index=0, file_index=0)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise DataError(
            f"{where}: {key} is {template!r} ({error!r}); a path with {{video_key}}, {{chunk_index}}, {{file_index}} "
            "is needed"
        ) from error
