# SPDX-License-Identifier: Apache-2.0
"""One recorded episode: a queue, a writer thread and an MCAP file that survives a crash. No rclpy.

The file is `<id>.mcap.part` while it is open. Finishing writes the index, syncs and renames; a kill at any moment
loses at most the last flush period, which `lapa_core.data.mcap_episode.recover` proves by reading the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcap.writer import CompressionType, Writer

from lapa_core.errors import DataError
from lapa_core.paths import sync

METADATA_NAME = "lapa.episode"
"""Name of the metadata record: one JSON object under the key `json`. The last of a file counts."""
CHUNK_BYTES = 512 * 1024
"""A chunk is lost as a whole when the process is killed; a second of everything is less than this."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One recorded topic."""

    topic: str
    """Absolute topic name."""
    type_name: str
    """For example `sensor_msgs/msg/JointState`."""
    schema: str
    """`ros2msg` text of the type and all inside it."""


class EpisodeFile:
    """Writes serialized messages to disk from a thread of its own; `write` never waits."""

    def __init__(
        self, folder: Path, episode_id: str, streams: list[Stream], metadata: Mapping[str, Any], *,
        queue_size: int, flush_period_s: float,
    ):  # fmt: skip
        """Open the file and start the thread.

        Raises:
            DataError: the file cannot be made.
        """
        self.path = folder / f"{episode_id}.mcap"
        self._part = folder / f"{episode_id}.mcap.part"
        try:
            self._stream = self._part.open("xb")
            # Held until the file is closed, however the process ends: `recover` leaves a locked file alone.
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                f"cannot record to {self._part}: {error}; check the recorder's folder"
            ) from error
        self.num_written = [0] * len(streams)
        self.num_dropped = [0] * len(streams)
        self.size_bytes = 0
        self.failure: str | None = None
        self._metadata = dict(metadata)
        self._flush_period_s = flush_period_s
        self._queue: queue.Queue[tuple[int, bytes, int] | None] = queue.Queue(queue_size)
        self._writer = Writer(
            self._stream, chunk_size=CHUNK_BYTES, compression=CompressionType.NONE
        )
        self._writer.start(profile="ros2", library="lapa recorder")
        self._channels = [self._register(stream) for stream in streams]
        try:
            self._write_metadata({})  # so that a recovered file knows its instruction
            self._sync()
        except OSError as error:
            self._delete()
            raise DataError(f"cannot record to {self._part}: {error}; is the disk full?") from error
        self._thread = threading.Thread(target=self._run, name="episode-writer", daemon=True)
        self._thread.start()

    def write(self, stream: int, data: bytes, stamp_ns: int) -> None:
        """Queue one message; where the disk is too slow, drop it and count that."""
        try:
            self._queue.put_nowait((stream, data, stamp_ns))
        except queue.Full:
            self.num_dropped[stream] += 1

    def finish(self, extra: Callable[[], Mapping[str, Any]], timeout_s: float = 30.0) -> Path:
        """Write what is queued, then the metadata with `extra()`; close, sync, rename; return the final path.

        Raises:
            DataError: the disk failed; the .part file is kept for recovery.
        """
        self._join(timeout_s)
        if self.failure is None:
            try:
                self._write_metadata(extra())
                self._writer.finish()
                self._stream.flush()
                os.fsync(self._stream.fileno())
                self._stream.close()
                os.rename(self._part, self.path)
                sync(self.path.parent)
            except OSError as error:
                self.failure = str(error)
        if self.failure is not None:
            with contextlib.suppress(OSError):
                self._stream.close()
            raise DataError(
                f"{self._part} could not be finished: {self.failure}; what it holds is kept"
            )
        return self.path

    def discard(self, timeout_s: float = 30.0) -> None:
        """Close and delete the file."""
        self._join(timeout_s)
        self._delete()

    def _delete(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk did not take is not wanted either
            self._stream.close()
        self._part.unlink(missing_ok=True)

    def _join(self, timeout_s: float) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):  # a hung disk: said below
                self._queue.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise DataError(f"the disk took longer than {timeout_s:g} s to take what was recorded")

    def _run(self) -> None:
        next_sync_s = time.monotonic() + self._flush_period_s
        try:
            while True:
                try:
                    item = self._queue.get(timeout=max(0.0, next_sync_s - time.monotonic()))
                except queue.Empty:
                    item = ()  # type: ignore[assignment]
                if item is None:
                    return
                if item:
                    stream, data, stamp_ns = item
                    self._writer.add_message(
                        self._channels[stream], stamp_ns, data, stamp_ns, self.num_written[stream]
                    )
                    self.num_written[stream] += 1
                if time.monotonic() >= next_sync_s:
                    self._sync()
                    next_sync_s = time.monotonic() + self._flush_period_s
        except Exception as error:  # disk full, unplugged; told by the state topic and by `finish`
            self.failure = str(error) or type(error).__name__

    def _sync(self) -> None:
        self._writer.flush()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.size_bytes = self._stream.tell()

    def _register(self, stream: Stream) -> int:
        schema = self._writer.register_schema(stream.type_name, "ros2msg", stream.schema.encode())
        return self._writer.register_channel(stream.topic, "cdr", schema)

    def _write_metadata(self, extra: Mapping[str, Any]) -> None:
        self._writer.add_metadata(
            METADATA_NAME, {"json": json.dumps({**self._metadata, **extra}, sort_keys=True)}
        )
