# SPDX-License-Identifier: Apache-2.0
"""Read TFRecord files and the `tf.train.Example` messages in them, without TensorFlow.

Every length and every record carries a masked CRC-32C, and each one is checked: a damaged record is
refused, never skipped. Imports numpy.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import DataError

Feature = list[bytes] | NDArray[np.float32] | NDArray[np.int64]

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
_MASK_DELTA = 0xA282EAD8
_LANES = 512


def _make_table() -> NDArray[np.uint32]:
    table: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE = _make_table()
_TABLE_LIST = _TABLE.tolist()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes.

    Long input is cut into equal lanes that numpy advances together; lanes are then joined pairwise
    with the linear map that a lane's length of zero bytes applies to a register.
    """
    if len(data) < 4 * _LANES:
        register = 0xFFFFFFFF
        for byte in data:
            register = _TABLE_LIST[(register ^ byte) & 0xFF] ^ (register >> 8)
        return register ^ 0xFFFFFFFF
    width = -(-len(data) // _LANES)
    padded = np.zeros(_LANES * width, dtype=np.uint8)  # leading zeros leave a zero register alone
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, dtype=np.uint8)
    padded[start : start + 4] ^= 0xFF  # the initial register, moved into the first four bytes
    bytes_of_lane = np.zeros((width, _LANES + 32), dtype=np.uint8)
    bytes_of_lane[:, :_LANES] = padded.reshape(_LANES, width).T
    registers = np.zeros(_LANES + 32, dtype=np.uint32)
    registers[_LANES:] = np.uint32(1) << np.arange(32, dtype=np.uint32)  # become the linear map
    for column in bytes_of_lane:
        registers = _TABLE[(registers ^ column) & 0xFF] ^ (registers >> 8)
    lanes, shift = registers[:_LANES], registers[_LANES:]
    while len(lanes) > 1:
        lanes = _apply(shift, lanes[0::2]) ^ lanes[1::2]
        shift = _apply(shift, shift)
    return int(lanes[0]) ^ 0xFFFFFFFF


def _apply(columns: NDArray[np.uint32], registers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Multiply 32-bit registers by a matrix over GF(2) given by its 32 columns."""
    bits = (registers[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    return np.bitwise_xor.reduce(np.where(bits, columns, np.uint32(0)), axis=1)


def masked_crc32c(data: bytes) -> int:
    """Return the CRC as TFRecord stores it: rotated by 15 bits and offset."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@dataclass(frozen=True)
class RecordPlace:
    """Where a record's bytes lie."""

    path: Path
    offset: int
    """First byte of the record [bytes]."""
    length: int
    """Length of the record [bytes]."""

    def read(self) -> bytes:
        """Read the record, or raise DataError when its checksum is wrong."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            data = stream.read(self.length)
            stored = stream.read(4)
        if len(stored) < 4 or struct.unpack("<I", stored)[0] != masked_crc32c(data):
            raise DataError(
                f"{self.path}: the record at byte {self.offset} does not match its checksum; the file "
                "is damaged: copy it again"
            )
        return data


def index_records(path: Path) -> list[RecordPlace]:
    """List the records of a TFRecord file from their headers alone.

    Raises:
        DataError: the file is missing or cut short, or a header is damaged.
    """
    places: list[RecordPlace] = []
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            offset = 0
            while offset < size:
                stream.seek(offset)
                header = stream.read(12)
                intact = len(header) == 12
                intact = intact and struct.unpack("<I", header[8:])[0] == masked_crc32c(header[:8])
                length = struct.unpack("<Q", header[:8])[0] if intact else 0
                if not intact or offset + 16 + length > size:
                    found = "is cut short" if intact or len(header) < 12 else "has a damaged header"
                    raise DataError(
                        f"{path}: record {len(places)} at byte {offset} of {size} {found}; whole "
                        "TFRecord records are needed: copy the file again"
                    )
                places.append(RecordPlace(path, offset + 12, length))
                offset += 16 + length
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); copy it again") from error
    return places


def parse_example(data: bytes) -> dict[str, Feature]:
    """Decode a `tf.train.Example` into its features by name.

    Raises:
        DataError: the bytes are no such message.
    """
    try:
        features: dict[str, Feature] = {}
        for _, example in _fields(data):
            for _, entry in _fields(_as_bytes(example)):
                parts = dict(_fields(_as_bytes(entry)))
                features[_as_bytes(parts[1]).decode()] = _feature(_as_bytes(parts.get(2, b"")))
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise DataError(
            f"a record is no tf.train.Example ({error}); only RLDS data sets written by TFDS are read"
        ) from error
    return features


def _feature(data: bytes) -> Feature:
    for kind, content in _fields(data):
        values = [value for _, value in _fields(_as_bytes(content))]
        if kind == 1:
            return [_as_bytes(value) for value in values]
        if kind == 2:
            return np.concatenate([_floats(value) for value in values] or [np.zeros(0, np.float32)])
        if kind == 3:
            return np.array([n for value in values for n in _integers(value)], dtype=np.int64)
    return []


def _floats(value: bytes | int) -> NDArray[np.float32]:
    return np.frombuffer(_as_bytes(value), dtype="<f4").astype(np.float32)


def _integers(value: bytes | int) -> list[int]:
    numbers = []
    if isinstance(value, int):
        numbers.append(value)
    else:
        position = 0
        while position < len(value):
            number, position = _varint(value, position)
            numbers.append(number)
    return [n - (1 << 64) if n >> 63 else n for n in numbers]


def _as_bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield (field number, content) of a protobuf message."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        wire = key & 7
        if wire == 0:
            number, position = _varint(data, position)
            yield key >> 3, number
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > len(data):
            raise ValueError(f"a field of {length} bytes runs past the end")
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
        if shift > 63:
            raise ValueError("a number longer than 64 bits")
