# SPDX-License-Identifier: Apache-2.0
"""The authors' `params` file: where each array lies in it, and its numbers, layer by layer. No JAX.

The file is a sequence of msgpack pairs (key, bytes), one per array (facts/lapa.md 2.8; tux' `StreamingCheckpointer`).
The bytes are msgpack again: extension type 1 around (shape, dtype, numbers), or, beyond 1 GiB, a map with
`__msgpack_chunked_array__`, `shape` and flat `chunks` (flax' `serialization.py`). `index_stream` reads these headers
alone and steps over the numbers, so that a file of 13.6 GB is indexed at once and read in any order afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lapa_core.errors import CheckpointError
from lapa_core.vla.lwm.msgpack_heads import Damage, HeadReader

Key = tuple[str, ...]

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""Types that weights are stored in."""
CHUNK_MARK = "__msgpack_chunked_array__"
NDARRAY = 1
"""Flax' extension type of an array."""


@dataclass(frozen=True, kw_only=True)
class ArrayPlace:
    """One array of the file."""

    shape: tuple[int, ...]
    """Its shape."""
    dtype: str
    """Its type, a key of `DTYPES`."""
    pieces: tuple[tuple[int, int], ...]
    """Offset in the file and length of the parts of its numbers, in order [bytes]."""

    @property
    def itemsize(self) -> int:
        """Size of one number [bytes]."""
        return DTYPES[self.dtype].itemsize


def index_stream(path: Path) -> dict[Key, ArrayPlace]:
    """Return where every array of the file lies, after checking that all of them are whole.

    Raises:
        CheckpointError: the file is missing, cut off or damaged; names the key, or the one before.
    """
    places: dict[Key, ArrayPlace] = {}
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            reader = HeadReader(file, size)
            while reader.position < size:
                _read_pair(path, reader, places)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if not places:
        raise CheckpointError(f"{path} is empty; download it again")
    return places


def read_array(file: BufferedReader, place: ArrayPlace, layer: int | None = None) -> Tensor:
    """Return an array, or one row of its first axis; only that is read.

    Args:
        file: the open file that was indexed.
        place: of the array.
        layer: row; None reads everything.

    Raises:
        CheckpointError: the file became shorter since it was indexed.
    """
    shape = place.shape if layer is None else place.shape[1:]
    length = prod(shape) * place.itemsize
    buffer = bytearray(length)
    view, done = memoryview(buffer), 0
    for offset, count in _parts(place.pieces, (layer or 0) * length, length):
        file.seek(offset)
        if file.readinto(view[done : done + count]) != count:
            raise CheckpointError(f"{file.name} became shorter while it was read; import it again")
        done += count
    if not length:
        return torch.empty(shape, dtype=DTYPES[place.dtype])
    return torch.frombuffer(buffer, dtype=DTYPES[place.dtype]).reshape(shape)


def _parts(
    pieces: tuple[tuple[int, int], ...], start: int, length: int
) -> Iterator[tuple[int, int]]:
    """Yield offset and length in the file of a range of the joined pieces."""
    for offset, count in pieces:
        skipped = min(start, count)
        taken = min(count - skipped, length)
        if taken:
            yield offset + skipped, taken
        start, length = start - skipped, length - taken


def _read_pair(path: Path, reader: HeadReader, places: dict[Key, ArrayPlace]) -> None:
    before = f"after {'/'.join(list(places)[-1])}" if places else "at the start"
    named = f"the entry {before}, at byte {reader.position},"
    try:
        reader.array(2)
        key = tuple(reader.text() for _ in range(reader.array()))
        named = f"the entry of {'/'.join(key)}"
        if key in places:
            raise Damage("there are two of it")
        length = reader.raw()
        end = reader.position + length
        if end > reader.size:
            raise Damage(f"{length} bytes are announced, {reader.size - reader.position} are there")
        place = _read_value(reader)
        if reader.position != end:
            raise Damage("its length is not that of its array")
    except Damage as damage:
        raise CheckpointError(
            f"{path}: {named} is damaged ({damage}); download the file again"
        ) from damage
    places[key] = place


def _read_value(reader: HeadReader) -> ArrayPlace:
    if reader.is_map():
        return _read_chunked(reader)
    return _read_ndarray(reader)


def _read_ndarray(reader: HeadReader) -> ArrayPlace:
    kind, length = reader.extension()
    end = reader.position + length
    if kind != NDARRAY:
        raise Damage(f"extension type {kind} is no array")
    reader.array(3)
    shape = tuple(reader.number() for _ in range(reader.array()))
    dtype = reader.text()
    if dtype not in DTYPES:
        raise Damage(f"its type is {dtype!r}; weights are of {', '.join(DTYPES)}")
    held = reader.raw()
    place = ArrayPlace(shape=shape, dtype=dtype, pieces=((reader.position, held),))
    if held != prod(shape) * place.itemsize:
        raise Damage(f"{dtype} {shape} has {held} bytes")
    reader.skip(held)
    if reader.position != end:
        raise Damage("its length is not that of its numbers")
    return place


def _read_chunked(reader: HeadReader) -> ArrayPlace:
    shape: tuple[int, ...] | None = None
    chunks: list[ArrayPlace] = []
    marked = False
    for _ in range(reader.map()):
        entry = reader.text()
        if entry == CHUNK_MARK:
            marked = reader.truth()
        elif entry == "shape":
            sizes = {reader.text(): reader.number() for _ in range(reader.map())}
            shape = tuple(_in_order(sizes))
        elif entry == "chunks":
            found = {reader.text(): _read_ndarray(reader) for _ in range(reader.map())}
            chunks = _in_order(found)
        else:
            raise Damage(f"{entry!r} is no part of a chunked array")
    if not marked or shape is None or not chunks:
        raise Damage(f"it is no array and no chunked one ({CHUNK_MARK}, shape and chunks)")
    if len(types := {chunk.dtype for chunk in chunks}) > 1:
        raise Damage(f"its chunks are of the types {sorted(types)}")
    pieces = tuple(piece for chunk in chunks for piece in chunk.pieces)
    place = ArrayPlace(shape=shape, dtype=chunks[0].dtype, pieces=pieces)
    if (held := sum(length for _, length in pieces)) != prod(shape) * place.itemsize:
        raise Damage(f"{place.dtype} {shape} has chunks of {held} bytes")
    return place


def _in_order(numbered: dict[str, Any]) -> list[Any]:
    """Return the values of flax' form of a tuple, {"0": ..., "1": ...}, in order."""
    if set(numbered) != {str(i) for i in range(len(numbered))}:
        raise Damage(f"its parts are numbered {sorted(numbered)[:8]}")
    return [numbered[str(i)] for i in range(len(numbered))]
