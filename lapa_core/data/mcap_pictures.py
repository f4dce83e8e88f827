# SPDX-License-Identifier: Apache-2.0
"""Chosen pictures of a recording without reading the rest of it, through the index at the end of the file.

A process keeps where the chunks of a file begin and how many of its pictures each holds: 16 bytes a chunk. A file
without such an index is read whole. Imports mcap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from mcap.data_stream import ReadDataStream
from mcap.reader import make_reader
from mcap.records import Chunk, Message, Schema
from mcap.stream_reader import breakup_chunk
from numpy.typing import NDArray

from lapa_core.data.mcap_episode import MessageDecoder, damaged_recording, read_pictures
from lapa_core.data.ros_images import decode_picture
from lapa_core.errors import DataError

_KEPT_FILES = 4096
_RECORD_HEAD_BYTES = 9
"""Opcode and length, before the content of every record."""
_INDEX_ENTRY_BYTES = 16


class _Chunks(NamedTuple):
    """The C chunks of a file that hold pictures of a topic."""

    starts_C: NDArray[np.int64]
    """Where each begins [bytes]."""
    ends_C: NDArray[np.int64]
    """How many pictures lie in it and in those before it."""
    schemas: dict[int, Schema]
    """Definition of the pictures, by the channel that they came through."""


def read_chosen_pictures(
    path: Path, topic: str, numbers: Sequence[int], num_frames: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield (number, RGB picture) of the wanted pictures of a topic, in their order.

    Args:
        path: a finished recording.
        topic: topic of the pictures.
        numbers: wanted pictures, increasing, counted from the first of the topic in the file.
        num_frames: how many pictures the topic should have.

    Raises:
        DataError: the file is missing or damaged, or has another number of pictures.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    chunks = _chunks(path, topic, state.st_mtime_ns, state.st_size)
    if chunks is None:
        yield from read_pictures(path, topic, numbers).items()
        return
    if chunks.ends_C[-1] != num_frames:
        raise DataError(
            f"{path} holds {chunks.ends_C[-1]} pictures of {topic}, the index says {num_frames}; run "
            "`lapa data index` again"
        )
    decode = MessageDecoder(path)
    for number, channel, data in _messages(path, chunks, numbers):
        yield number, decode_picture(decode(chunks.schemas[channel], data), f"{path} {topic}")


def _messages(
    path: Path, chunks: _Chunks, numbers: Sequence[int]
) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, channel and content of wanted messages, each chunk read once and checked."""
    places = np.searchsorted(chunks.ends_C, numbers, side="right").tolist()
    with path.open("rb") as stream:
        for place, group in groupby(zip(places, numbers, strict=True), key=lambda pair: pair[0]):
            held = _read_chunk(path, stream, int(chunks.starts_C[place]), chunks.schemas)
            first = int(chunks.ends_C[place - 1]) if place else 0
            if first + len(held) != chunks.ends_C[place]:
                raise DataError(
                    f"{path}: the chunk at byte {chunks.starts_C[place]} holds {len(held)} pictures, the file's own "
                    f"index says {chunks.ends_C[place] - first}; record or copy it again"
                )
            for _, number in group:
                message = held[number - first]
                yield number, message.channel_id, message.data


def _read_chunk(
    path: Path, stream: IO[bytes], start: int, channels: dict[int, Schema]
) -> list[Message]:
    """Return the messages of some channels in one chunk, its checksum checked."""
    try:
        stream.seek(start + _RECORD_HEAD_BYTES)
        records = breakup_chunk(Chunk.read(ReadDataStream(stream)), validate_crc=True)
    except Exception as error:  # the boundary to mcap, whose decompressors have errors of their own
        raise damaged_recording(path, error) from error
    messages = (record for record in records if isinstance(record, Message))
    return [message for message in messages if message.channel_id in channels]


@lru_cache(maxsize=_KEPT_FILES)
def _chunks(path: Path, topic: str, mtime_ns: int, size_bytes: int) -> _Chunks | None:
    """Return where the pictures lie, or None where the file does not say; size and time name one state of it."""
    try:
        with path.open("rb") as stream:
            return _read_index(stream, topic)
    except Exception as error:  # as above
        raise damaged_recording(path, error) from error


def _read_index(stream: IO[bytes], topic: str) -> _Chunks | None:
    summary = make_reader(stream).get_summary()
    if summary is None or summary.statistics is None:
        return None
    channels = {number for number, channel in summary.channels.items() if channel.topic == topic}
    starts, counts = [], []
    for chunk in sorted(summary.chunk_indexes, key=lambda chunk: chunk.chunk_start_offset):
        offsets = chunk.message_index_offsets
        held = sum(_count(stream, offsets[channel]) for channel in channels & set(offsets))
        if held:
            starts.append(chunk.chunk_start_offset)
            counts.append(held)
    promised = summary.statistics.channel_message_counts
    if sum(counts) != sum(promised.get(channel, 0) for channel in channels) or not counts:
        return None
    schemas = {
        channel: summary.schemas[summary.channels[channel].schema_id] for channel in channels
    }
    return _Chunks(np.array(starts), np.cumsum(counts), schemas)


def _count(stream: IO[bytes], offset: int) -> int:
    """Return how many messages of its channel a message index record names."""
    stream.seek(offset + _RECORD_HEAD_BYTES)
    _, size_bytes = struct.unpack("<HI", stream.read(6))
    return int(size_bytes) // _INDEX_ENTRY_BYTES
