# SPDX-License-Identifier: Apache-2.0
"""Read one recorded MCAP episode without ROS, and rescue one whose recorder was killed.

Messages are decoded from the definitions stored in the file, so neither ROS nor this project's message packages are
needed. A first pass keeps what is small (deltas, arm states, stamps of pictures); pictures are decoded in a second
pass, and only those that an episode uses. Imports mcap and mcap_ros2.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.records import Channel, Footer, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, StreamReader
from mcap.writer import CompressionType, Writer
from mcap_ros2.decoder import DecoderFactory
from numpy.typing import NDArray

from lapa_core.data.ros_images import decode_picture, why_no_colours
from lapa_core.errors import DataError
from lapa_core.paths import sync

METADATA_NAME = "lapa.episode"
"""Name of the metadata record that holds one JSON object under `json`; the last of a file counts."""

DELTA_TYPE = "lapa_msgs/msg/EndEffectorDelta"
ARM_STATE_TYPE = "lapa_msgs/msg/ArmState"
PICTURE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")

_NO_SCHEMA = Schema(id=0, name="", encoding="", data=b"")
"""Stands for "none" with records that belong to no schema."""

_DAMAGE = (McapError, CRCValidationError, struct.error, EOFError, UnicodeDecodeError)
"""What the mcap package raises on a file that ends early or holds other bytes than it should."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """The small part of one episode, in the order of the file."""

    path: Path
    """The file."""
    metadata: dict[str, Any]
    """The recorder's JSON: instruction, outcome, contract_hash, control_rate_hz, ..."""
    deltas: list[Any] = field(default_factory=list)
    """Decoded `EndEffectorDelta` messages."""
    arm_states: list[Any] | None = None
    """Decoded `ArmState` messages; None when the topic was not recorded."""
    picture_stamps_s: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Header stamp of every picture of each picture topic [s]."""


def read_recording(path: Path) -> Recording:
    """Read a finished episode file from its first to its last byte.

    Raises:
        DataError: the file is damaged, unfinished, or was not written by the recorder.
    """
    metadata: dict[str, Any] | None = None
    deltas: list[Any] = []
    arm_states: list[Any] = []
    has_arm_state = finished = False
    stamps: dict[str, list[float]] = {}
    decode = MessageDecoder(path)
    for record, schema in read_records(path):
        if isinstance(record, Footer):
            finished = True
        elif isinstance(record, Metadata) and record.name == METADATA_NAME:
            metadata = _parse_metadata(path, record)
        elif isinstance(record, Channel):
            has_arm_state |= schema.name == ARM_STATE_TYPE
        elif isinstance(record, Message):
            if schema.name == DELTA_TYPE:
                deltas.append(decode(schema, record.data))
            elif schema.name == ARM_STATE_TYPE:
                arm_states.append(decode(schema, record.data))
            elif schema.name in PICTURE_TYPES:
                stamps.setdefault(decode.topic(record), []).append(
                    _header_stamp_s(path, record.data)
                )
        decode.remember(record)
    if not finished:
        raise DataError(f"{path} was not finished by its recorder; recover it first")
    if metadata is None:
        raise DataError(
            f"{path} has no {METADATA_NAME!r} record; only this project's recordings are exported"
        )
    return Recording(
        path=path,
        metadata=metadata,
        deltas=deltas,
        arm_states=arm_states if has_arm_state else None,
        picture_stamps_s={topic: np.asarray(values) for topic, values in stamps.items()},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureTopics:
    """The pictures of a recording, whoever recorded it, without one decoded."""

    path: Path
    """The file."""
    stamps_s: dict[str, NDArray[np.float64]]
    """Header stamp of every picture of each picture topic [s]."""
    unreadable: dict[str, str]
    """Topics without colours, such as depth, and why they are not read."""
    instruction: str
    """What the recorder was told; empty in files of other recorders."""


def read_picture_topics(path: Path) -> PictureTopics:
    """Read the stamps of all pictures of a finished file; other messages are passed over.

    Raises:
        DataError: the file is damaged or unfinished.
    """
    stamps: dict[str, list[float]] = {}
    unreadable: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    finished = False
    decode = MessageDecoder(path)
    for record, schema in read_records(path):
        decode.remember(record)
        if isinstance(record, Footer):
            finished = True
        elif isinstance(record, Metadata) and record.name == METADATA_NAME:
            metadata = _parse_metadata(path, record)
        elif isinstance(record, Message) and schema.name in PICTURE_TYPES:
            topic = decode.topic(record)
            if topic not in stamps and (reason := why_no_colours(decode(schema, record.data))):
                unreadable[topic] = reason
            stamps.setdefault(topic, []).append(_header_stamp_s(path, record.data))
    if not finished:
        raise DataError(f"{path} was not finished by its recorder; recover it first")
    return PictureTopics(
        path=path,
        stamps_s={topic: np.asarray(values) for topic, values in stamps.items()},
        unreadable=unreadable,
        instruction=str(metadata.get("instruction", "")),
    )


def read_pictures(path: Path, topic: str, wanted: Iterable[int]) -> dict[int, NDArray[np.uint8]]:
    """Decode the pictures of a topic that have the given positions in `picture_stamps_s`, as RGB."""
    chosen, position = set(wanted), 0
    pictures: dict[int, NDArray[np.uint8]] = {}
    decode = MessageDecoder(path)
    for record, schema in read_records(path):
        decode.remember(record)
        if not isinstance(record, Message) or decode.topic(record) != topic:
            continue
        if position in chosen:
            pictures[position] = decode_picture(decode(schema, record.data), f"{path} {topic}")
        position += 1
    return pictures


def recover(part: Path) -> Path:
    """Rescue a `.mcap.part` that a killed recorder left: keep every complete message, and rename it.

    The rescued file gets a last metadata record with `outcome` "interrupted" and `recovered` true, so
    that export does not take it for a success. The `.part` is deleted only after the rescued file is
    on the disk and has been read back.

    Returns:
        The path of the rescued file, without `.part`.

    Raises:
        DataError: the name does not end in `.mcap.part`, a recorder still writes to it, the target
            exists, or there is no message to rescue. Nothing is deleted then.
    """
    part = Path(part)
    if not part.name.endswith(".mcap.part"):
        raise DataError(f"{part} is no unfinished recording; a name ending in .mcap.part is needed")
    target = part.with_suffix("")
    _refuse_locked(part)
    if target.exists():
        raise DataError(f"{target} exists already; delete {part.name} or move one of the two away")
    temporary = target.with_name(target.name + ".recovering")
    try:
        count = _copy_complete(part, temporary)
        if not count:
            raise DataError(
                f"{part} holds no complete message; nothing can be recovered: delete it"
            )
        written = sum(isinstance(record, Message) for record, _ in read_records(temporary))
        if written != count:
            raise DataError(f"{temporary} holds {written} of {count} messages; check the disk")
        os.rename(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync(target.parent)
    part.unlink()
    return target


def _refuse_locked(part: Path) -> None:
    """Raise DataError where a recorder holds its lock on the file; the lock ends with that process."""
    with part.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                f"{part} is being written by a running recorder; stop that first"
            ) from error


def read_records(path: Path, *, until_damage: bool = False) -> Iterator[tuple[Any, Schema]]:
    """Yield every record of a file in its order, checksums checked, with the schema it belongs to.

    Args:
        path: file to read.
        until_damage: end quietly where the file breaks off, for recovery.

    Raises:
        DataError: the file is missing, or breaks off or is damaged.
    """
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    try:
        with path.open("rb") as stream:
            for record in StreamReader(stream, validate_crcs=True).records:
                schema = _NO_SCHEMA
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    channels[record.id] = record
                    schema = schemas.get(record.schema_id, _NO_SCHEMA)
                elif isinstance(record, Message):
                    schema = schemas.get(channels[record.channel_id].schema_id, _NO_SCHEMA)
                yield record, schema
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    except Exception as error:  # the boundary to mcap, whose decompressors have errors of their own
        if until_damage:
            return
        raise damaged_recording(path, error) from error


def damaged_recording(path: Path, error: Exception) -> DataError:
    """Return the error of a file that is not whole, from what the mcap package said."""
    return DataError(
        f"{path} is cut short or damaged ({error or type(error).__name__}); if its recorder was "
        "killed, name it .mcap.part and recover it, else copy it again"
    )


class MessageDecoder:
    """Decodes messages by the definitions of one file, and remembers its topics."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._factory = DecoderFactory()
        self._decoders: dict[int, Callable[[bytes], Any]] = {}
        self._topics: dict[int, str] = {}

    def remember(self, record: Any) -> None:
        """Take note of a record that names a topic."""
        if isinstance(record, Channel):
            self._topics[record.id] = record.topic

    def topic(self, message: Message) -> str:
        """Return the topic of a message whose channel was remembered."""
        return self._topics[message.channel_id]

    def __call__(self, schema: Schema, data: bytes) -> Any:
        """Return a message as an object with the fields of its type, or raise DataError."""
        if schema.id not in self._decoders:
            decoder = self._factory.decoder_for("cdr", schema)
            if decoder is None:
                raise DataError(
                    f"{self._path}: {schema.name} has encoding {schema.encoding!r}; ros2msg is needed"
                )
            self._decoders[schema.id] = decoder
        try:
            return self._decoders[schema.id](data)
        except (*_DAMAGE, IndexError, ValueError) as error:
            raise DataError(f"{self._path}: a {schema.name} cannot be decoded ({error})") from error


def _copy_complete(part: Path, out: Path) -> int:
    """Copy what is whole of a broken file into a new, finished one; return the number of messages."""
    schema_ids: dict[int, int] = {}
    channel_ids: dict[int, int] = {}
    metadata: dict[str, Any] = {}
    count = 0
    with out.open("wb") as stream:
        writer = Writer(stream, compression=CompressionType.NONE)
        writer.start(profile="ros2", library="lapa recover")
        for record, _ in read_records(part, until_damage=True):
            if isinstance(record, Schema):
                schema_ids[record.id] = writer.register_schema(
                    record.name, record.encoding, record.data
                )
            elif isinstance(record, Channel):
                channel_ids[record.id] = writer.register_channel(
                    record.topic, record.message_encoding, schema_ids[record.schema_id]
                )
            elif isinstance(record, Message):
                times = (record.publish_time, record.sequence)
                writer.add_message(
                    channel_ids[record.channel_id], record.log_time, record.data, *times
                )
                count += 1
            elif isinstance(record, Metadata) and record.name == METADATA_NAME:
                metadata = _parse_metadata(part, record)
        marked = {**metadata, "outcome": "interrupted", "recovered": True}
        writer.add_metadata(METADATA_NAME, {"json": json.dumps(marked, sort_keys=True)})
        writer.finish()
        stream.flush()
        os.fsync(stream.fileno())
    return count


def _parse_metadata(path: Path, record: Metadata) -> dict[str, Any]:
    content: Mapping[str, str] = record.metadata
    try:
        value = json.loads(content["json"])
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{path}: the {METADATA_NAME!r} record holds no JSON ({error!r})"
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            f"{path}: the {METADATA_NAME!r} record holds a {type(value).__name__}; an object is needed"
        )
    return value


def _header_stamp_s(path: Path, data: bytes) -> float:
    """Read the stamp of a message that begins with a `std_msgs/Header`, without decoding its picture."""
    if len(data) < 12:
        raise DataError(f"{path}: a picture message of {len(data)} bytes is too short")
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    return float(seconds) + nanoseconds * 1e-9
