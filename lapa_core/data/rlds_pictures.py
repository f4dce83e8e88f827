# SPDX-License-Identifier: Apache-2.0
"""Chosen pictures of an RLDS record without reading the rest of it.

A record's checksum covers all cameras and takes longer than reading. So a process checks and parses a record once, and
keeps where its pictures lie: 16 bytes each, the records that it used last. Imports numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.kept import Kept
from lapa_core.data.rlds import decode_frame
from lapa_core.data.tfrecord import RecordPlace, parse_example
from lapa_core.errors import DataError

KEPT_BYTES = 64 * 2**20
"""Memory of a process for the places of pictures [bytes]: four million of them."""

_places: Kept[NDArray[np.int64]] = Kept(KEPT_BYTES, lambda places_N2: places_N2.nbytes)


def read_record_pictures(
    record: RecordPlace, feature: str, numbers: Sequence[int], num_frames: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures of a record as RGB (H, W, 3).

    Args:
        record: where the record lies.
        feature: name of the feature that holds the encoded pictures.
        numbers: wanted pictures, from 0.
        num_frames: how many pictures the feature should have.

    Raises:
        DataError: the file is missing or damaged, or is not what it should be.
    """
    try:
        state = record.path.stat()
        key = (record, state.st_mtime_ns, state.st_size, feature)
        places_N2 = _places.get(key, lambda: _find(record, feature))
        if len(places_N2) != num_frames:
            raise DataError(
                f"{record.path}: the record at byte {record.offset} changed; run `lapa data index` again"
            )
        with record.path.open("rb") as stream:
            for number in numbers:
                start, length = places_N2[number].tolist()
                stream.seek(start)
                name = f"{record.path}: frame {number} of {feature} in the record at byte {record.offset}"
                yield decode_frame(stream.read(length), name)
    except OSError as error:
        raise DataError(f"{record.path} cannot be read ({error}); copy it again") from error


def _find(record: RecordPlace, feature: str) -> NDArray[np.int64]:
    """Return first byte in the file and length [bytes] of each picture of a record, (N, 2)."""
    data = record.read()
    cells = parse_example(data).get(feature)
    rows, end = [], 0
    for cell in cells if isinstance(cells, list) else []:
        start = data.index(cell, end)
        end = start + len(cell)
        rows.append((record.offset + start, len(cell)))
    return np.array(rows, np.int64).reshape(-1, 2)
