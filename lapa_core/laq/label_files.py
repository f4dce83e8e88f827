# SPDX-License-Identifier: Apache-2.0
"""Labels on disk: a folder with `labels.json` and one parquet file per shard; how they are written and verified.

A row of a shard:

    episode  int32          position of the clip in the data set
    clip     string         its name there
    frame    int32          number of the frame within the clip
    later    int32          number of the frame that it is compared with
    time_s   float64        time of the frame from the start of the clip [s]
    codes    list<int8>     one code per latent token (int16 or int32 for larger codebooks)
    vector   list<float32>  the latent tokens before quantisation, end to end

Every file is written under another name, synced and renamed, so a file of this name is whole. Imports no torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lapa_core.errors import DataError
from lapa_core.laq.label_source import DataIdentity
from lapa_core.paths import sync

FACTS_FILE = "labels.json"
JOURNAL_FILE = "labels.unfinished.jsonl"
"""Number and SHA-256 of each shard that a run has finished; gone when all are and `labels.json` has them."""
_FORMAT = 1
"""Raise when the meaning of a file changes."""
_AGAIN = "run the same `lapa laq label` again: it makes only what is not whole"


@dataclass(frozen=True, kw_only=True)
class LabelFacts:
    """All that the labels are a function of, and how to read them: the content of `labels.json`."""

    checkpoint_hash: str
    """SHA-256 of the weights of the latent action model."""
    gap_s: float
    """Time between the frames of a pair [s]."""
    image_px: int
    """Side of the frames that the model saw [px]."""
    tokens: int
    """K, latent tokens per pair."""
    dim: int
    """D, numbers per token."""
    centres: list[list[float]]
    """(N, D) the vector of every code."""
    data: DataIdentity
    """The frames that were labelled."""
    frames_per_clip: list[int]
    """Frames of each clip, in the order of the data set."""
    shard_rows: int
    """Most pairs of a file."""
    batch_size: int
    """Pairs that the model took at once: the last bits of a vector may depend on it."""

    @property
    def code_type(self) -> pa.DataType:
        """Smallest signed integer that holds every code."""
        codes = len(self.centres)
        return pa.int8() if codes <= 128 else pa.int16() if codes <= 32768 else pa.int32()


def shard_bytes(
    facts: LabelFacts,
    columns: dict[str, Any],
    codes_PK: NDArray[np.int64],
    vectors_PKD: NDArray[np.float32],
) -> bytes:
    """Return the file of a shard; equal input gives equal bytes (with one version of pyarrow, which names itself).

    Args:
        facts: what the labels are a function of.
        columns: `episode`, `clip`, `frame`, `later`, `time_s`, one entry per pair.
        codes_PK: codes of each pair.
        vectors_PKD: vectors before quantisation.
    """
    types = {
        "episode": pa.int32(),
        "clip": pa.string(),
        "frame": pa.int32(),
        "later": pa.int32(),
        "time_s": pa.float64(),
    }
    table = pa.table(
        {
            **{name: pa.array(columns[name], kind) for name, kind in types.items()},
            "codes": _lists(codes_PK, facts.code_type),
            "vector": _lists(vectors_PKD.reshape(len(codes_PK), -1), pa.float32()),
        }
    )
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        row_group_size=len(table),
        compression="zstd",
        compression_level=3,
        use_dictionary=["clip"],
        write_statistics=False,
        store_schema=False,
    )
    return out.getvalue()


def _lists(rows_PW: NDArray, kind: pa.DataType) -> pa.ListArray:
    offsets = np.arange(len(rows_PW) + 1, dtype=np.int32) * rows_PW.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows_PW.ravel(), kind))


def read_shard(path: Path, sha256: str, columns: list[str] | None = None) -> pa.Table:
    """Read a shard, checked against its hash; `columns` None reads all.

    Raises:
        DataError: missing or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); {_AGAIN}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} is not what was written; {_AGAIN}")
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        return file.read(columns)


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in its place when all of it is on the disk.

    Raises:
        DataError: it cannot be written; nothing of it is left.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise DataError(
            f"{path} cannot be written ({error}); make room, and run the same command again: finished shards are "
            "kept"
        ) from error


def append_journal(folder: Path, number: int, sha256: str) -> None:
    """Note that a shard is finished.

    Raises:
        DataError: the disk does not take it.
    """
    try:
        with (folder / JOURNAL_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps([number, sha256]) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(
            f"{folder / JOURNAL_FILE} cannot be written ({error}); make room"
        ) from error


def read_journal(folder: Path) -> dict[int, str]:
    """Return number -> SHA-256 of the finished shards of an unfinished run; a torn last line counts as not there.

    Raises:
        DataError: another line is damaged.
    """
    path = folder / JOURNAL_FILE
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    try:
        return dict(json.loads(line) for line in lines)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged ({error}); delete it: the shards are made again"
        ) from error


def write_facts(folder: Path, facts: LabelFacts, hashes: list[str] | None) -> None:
    """Write `labels.json`; without the shards' hashes it says that the labels are not finished."""
    content = {"format": _FORMAT, **asdict(facts), "shards": hashes}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(v)}" for name, v in content.items())
    write_whole(folder / FACTS_FILE, f"{{\n{lines}\n}}\n".encode())


def read_facts(folder: Path) -> tuple[LabelFacts, list[str] | None]:
    """Read `labels.json`: the facts, and the SHA-256 of each shard, or None when the labels are not finished.

    Raises:
        DataError: missing or not what this version writes.
    """
    try:
        content = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        if (found := content.pop("format")) != _FORMAT:
            raise ValueError(f"format {found}, known is {_FORMAT}")
        shards = content.pop("shards")
        data = content.pop("data")
        thumbnails = tuple(tuple(thumbnail) for thumbnail in data["thumbnails"])
        facts = LabelFacts(
            **content, data=DataIdentity(sha256=data["sha256"], thumbnails=thumbnails)
        )
        return facts, shards
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder} cannot be read as a folder of latent labels ({error!r}); make them with `lapa laq label`"
        ) from error
