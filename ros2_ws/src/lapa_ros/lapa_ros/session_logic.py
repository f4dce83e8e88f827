# SPDX-License-Identifier: Apache-2.0
"""How far a recording session is, told by the recordings themselves. No ROS.

Every recording carries the session's name, its task and its number in its metadata; a kept one is a finished file
with the outcome "success" that no decision in `curation.jsonl` drops. So a crash, another day or another
machine change nothing: whoever looks at the folder finds the same progress.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mcap.exceptions import McapError
from mcap.reader import make_reader

from lapa_core.data.curation import Mark, add_mark, load_marks
from lapa_core.data.recorded_rows import RowLimits
from lapa_core.errors import DataError
from lapa_ros.episode_file import METADATA_NAME
from lapa_ros.session_plan import SessionPlan, Slot, slots

SUCCESS = "success"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A recording that counts."""

    path: Path
    """The file."""
    key: tuple[str, int]
    """Task and number of its slot."""
    started_at: str
    """When it was begun, ISO 8601."""
    contract_hash: str = ""
    """The contract that it was recorded under."""
    limits: RowLimits | None = None
    """What it was to be judged by when it was recorded; None where it does not say that in fields known here."""


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the last metadata record of a finished episode file, through its index.

    Raises:
        DataError: the file is damaged or has none.
    """
    try:
        with path.open("rb") as stream:
            texts = [
                record.metadata["json"]
                for record in make_reader(stream).iter_metadata()
                if record.name == METADATA_NAME
            ]
        metadata: dict[str, Any] = json.loads(texts[-1])
    except (McapError, IndexError, KeyError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no finished recording of ours: {error!r}") from error
    return metadata


class SessionProgress:
    """The slots of a plan, and which of them the folder holds."""

    def __init__(self, plan: SessionPlan, folder: Path):
        """Look through the folder.

        Raises:
            DataError: `curation.jsonl` is malformed.
        """
        self.plan, self.folder = plan, folder
        self._slots = slots(plan)
        self._kept: dict[Path, Kept] = {}
        self.unreadable: list[str] = []
        dropped = _dropped(folder)
        for path in sorted(folder.glob("*.mcap")):
            if path.resolve() in dropped:
                continue
            try:
                self._take(path, read_metadata(path))
            except DataError as error:
                self.unreadable.append(str(error))

    @property
    def num_kept(self) -> int:
        """Slots that are filled."""
        return len(self._filled())

    def task_kept(self, task: str) -> int:
        """Return how many slots of a task are filled."""
        return sum(key[0] == task for key in self._filled())

    def next_slot(self) -> Slot | None:
        """Return the first slot that is not filled; None when all are."""
        filled = self._filled()
        return next((s for s in self._slots if (s.task, s.number) not in filled), None)

    def facts(self, slot: Slot, limits: RowLimits) -> str:
        """Return what a recording of a slot, to be judged by `limits`, carries, as the recorder's `metadata_json`."""
        return json.dumps(
            {"session": self.plan.name, "task": slot.task, "number": slot.number,
             "layout": slot.layout, "seed": slot.seed, "limits": asdict(limits)}
        )  # fmt: skip

    def keep(self, path: Path) -> None:
        """Count a recording that was just saved.

        Raises:
            DataError: it cannot be read.
        """
        self._take(path, read_metadata(path))

    def drop(self, path: Path, note: str) -> None:
        """Count a recording no more and leave it out of every export; the file stays. On the disk at the return."""
        add_mark(self.folder, Mark(episode=path.name, keep=False, note=note))
        self._kept.pop(path, None)

    def newest(self) -> Kept | None:
        """Return the recording that was begun last of those that count."""
        return max(self._kept.values(), key=lambda kept: (kept.started_at, kept.path), default=None)

    def undo(self) -> Path:
        """Drop the newest recording that counts; its slot is open again.

        Raises:
            DataError: none counts.
        """
        newest = self.newest()
        if newest is None:
            raise DataError(
                f"no episode of session {self.plan.name!r} is kept; there is nothing to undo"
            )
        self.drop(newest.path, "undone by the operator")
        return newest.path

    def _filled(self) -> set[tuple[str, int]]:
        wanted = {(slot.task, slot.number) for slot in self._slots}
        return {kept.key for kept in self._kept.values()} & wanted

    def _take(self, path: Path, metadata: dict[str, Any]) -> None:
        facts = metadata.get("extra", {})
        if facts.get("session") != self.plan.name or metadata.get("outcome") != SUCCESS:
            return
        key = (str(facts.get("task")), int(facts.get("number", -1)))
        self._kept[path] = Kept(
            path=path, key=key, started_at=str(metadata.get("started_at", "")),
            contract_hash=str(metadata.get("contract_hash", "")), limits=_limits(facts.get("limits")),
        )  # fmt: skip


def _limits(said: Any) -> RowLimits | None:
    try:
        return RowLimits(**said)
    except (TypeError, DataError):
        return None


def _dropped(folder: Path) -> set[Path]:
    """Return what people and this session have dropped, in the folder's own file or in one above."""
    folder = folder.resolve()
    return {
        parent / name
        for parent in (folder, *folder.parents)
        for name, mark in load_marks(parent).items()
        if not mark.keep
    }
