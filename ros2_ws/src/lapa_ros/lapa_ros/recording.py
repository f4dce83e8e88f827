# SPDX-License-Identifier: Apache-2.0
"""A recording session: a folder, at most one open episode, counts. No rclpy; the clock is passed in."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lapa_core import __version__
from lapa_core.errors import DataError
from lapa_core.robot.contract import RobotContract
from lapa_ros.episode_file import EpisodeFile, Stream

MIN_FREE_BYTES = 500 * 1024**2
"""Recording does not start with less free disk than this: hundreds of episodes."""

RESERVED_BYTES = 250 * 1024**2
"""An open episode is ended with this much free disk left: enough to end it well."""

MAX_SILENCE_S = 1.0
"""A required topic that was not heard for so long is silent [s]."""


class RecordingSession:
    """Opens, feeds and closes episodes.

    Attributes:
        file: the open episode, or None.
        episode_id, instruction: of the open or the last episode.
        num_saved, num_discarded: since the session began.
    """

    def __init__(
        self,
        folder: Path,
        streams: list[Stream],
        contract: RobotContract,
        *,
        queue_size: int,
        flush_period_s: float,
    ):
        """Make the folder.

        Raises:
            DataError: the folder cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot make the folder {folder}: {error}; check the parameter `folder`"
            ) from error
        self.folder, self.streams = folder, streams
        self._contract = contract
        self._queue_size, self._flush_period_s = queue_size, flush_period_s
        self.file: EpisodeFile | None = None
        self.episode_id = self.instruction = self.message = ""
        self.num_saved = self.num_discarded = 0
        self._started_s = self._ended_s = 0.0
        self._heard_ns = [0] * len(streams)

    def recover(self, recover_file: Callable[[Path], Path]) -> list[str]:
        """Rescue the `.part` files that a crash left behind; return one sentence about each."""
        sentences = []
        for part in sorted(self.folder.glob("*.mcap.part")):
            try:
                sentences.append(f"recovered {recover_file(part).name} from a crash")
            except DataError as error:
                sentences.append(f"{part.name} cannot be recovered: {error}")
        return sentences

    def start(
        self,
        instruction: str,
        operator_name: str,
        metadata_json: str,
        now_s: float,
        required: Sequence[str] = (),
    ) -> str:
        """Open an episode; return its identifier.

        Args:
            instruction: what the arm is asked to do.
            operator_name: who demonstrates.
            metadata_json: further facts as a JSON object, or "".
            now_s: the node clock [s].
            required: topics that must have been heard a moment ago.

        Raises:
            DataError: one is open, a required topic is silent, the request is not usable, or the disk is full.
        """
        if self.file is not None:
            raise DataError(f"episode {self.episode_id} is open; stop it first")
        if silent := self.silent_topics(required, now_s):
            raise DataError(
                f"nothing is heard on {silent}; start what publishes there, or change `required`"
            )
        if not instruction.strip():
            raise DataError(
                "the instruction is empty; an episode without one cannot train anything"
            )
        extra = _parse_object(metadata_json)
        if problem := self.space_problem(MIN_FREE_BYTES):
            raise DataError(problem)
        now = datetime.now(timezone.utc)
        episode_id = f"ep_{now:%Y%m%d_%H%M%S}_{uuid.uuid4().hex[:8]}"
        metadata = {
            "format": 1, "episode_id": episode_id, "instruction": instruction, "operator_name": operator_name,
            "outcome": "", "started_at": now.isoformat(), "contract_name": self._contract.name,
            "contract_hash": self._contract.hash, "robot_model": self._contract.robot_model,
            "control_rate_hz": self._contract.control_rate_hz, "software_version": __version__, "extra": extra,
        }  # fmt: skip
        self.file = EpisodeFile(
            self.folder, episode_id, self.streams, metadata,
            queue_size=self._queue_size, flush_period_s=self._flush_period_s,
        )  # fmt: skip
        self.episode_id, self.instruction, self._started_s, self.message = (
            episode_id,
            instruction,
            now_s,
            "",
        )
        return episode_id

    def write(self, stream: int, data: bytes, stamp_ns: int) -> None:
        """Take one message; it is recorded where an episode is open."""
        self._heard_ns[stream] = stamp_ns
        if self.file is not None:
            self.file.write(stream, data, stamp_ns)

    def stop(self, save: bool, outcome: str, now_s: float) -> Callable[[], Path | None]:
        """Close the episode for new messages; return what finishes it, which waits for the disk.

        Raises:
            DataError: no episode is open.
        """
        if self.file is None:
            raise DataError("no episode is open; start one first")
        file, self.file = self.file, None
        self._ended_s = now_s
        topics = [stream.topic for stream in self.streams]
        duration_s = now_s - self._started_s

        def facts(file: EpisodeFile) -> dict[str, Any]:
            written = dict(zip(topics, file.num_written, strict=True))
            dropped = dict(zip(topics, file.num_dropped, strict=True))
            return {
                "outcome": outcome,
                "duration_s": duration_s,
                "num_written": written,
                "num_dropped": dropped,
            }

        def finish() -> Path | None:
            if not save:
                file.discard()
                self.num_discarded += 1
                return None
            path = file.finish(
                lambda: facts(file)
            )  # called once the queue is written: counts are complete
            self.num_saved += 1
            return path

        return finish

    def silent_topics(self, topics: Sequence[str], now_s: float) -> list[str]:
        """Return those of `topics` on which nothing was heard for `MAX_SILENCE_S`."""
        heard_s = {
            stream.topic: ns * 1e-9 for stream, ns in zip(self.streams, self._heard_ns, strict=True)
        }
        return [topic for topic in topics if now_s - heard_s.get(topic, 0.0) > MAX_SILENCE_S]

    def space_problem(self, needed_bytes: int) -> str:
        """Return a sentence when less than `needed_bytes` are free where the episodes lie; else ""."""
        free = shutil.disk_usage(self.folder).free
        if free >= needed_bytes:
            return ""
        return (
            f"{free / 1e6:.0f} MB are free at {self.folder}; {needed_bytes / 1e6:.0f} MB are needed"
        )

    def num_in_folder(self) -> int:
        """Return how many finished episodes the folder holds."""
        return sum(1 for _ in self.folder.glob("*.mcap"))

    def elapsed_s(self, now_s: float) -> float:
        """Return the length of the open or of the last episode [s]."""
        return (now_s if self.file is not None else self._ended_s) - self._started_s


def _parse_object(text: str) -> Mapping[str, Any]:
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"metadata_json is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"metadata_json is a {type(value).__name__}; one JSON object is needed")
    return value
