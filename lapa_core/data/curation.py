# SPDX-License-Identifier: Apache-2.0
"""What a person decided about recordings: keep, drop, or keep a part. Recordings themselves are never edited.

The decisions lie beside the recordings in `curation.jsonl`, one JSON object per line; lines are only ever added, and
the last one about a recording counts. `lapa data review` writes it, `lapa data export` obeys it. Imports no numpy.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lapa_core.errors import DataError

CURATION_NAME = "curation.jsonl"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The decision about one recording.

    Raises:
        DataError: a value makes no sense.
    """

    episode: str
    """Path of the recording below the folder, with slashes."""
    keep: bool = True
    """False leaves the whole recording out."""
    first_s: float = 0.0
    """Rows before this are left out, counted from the recording's first picture [s]."""
    last_s: float | None = None
    """Rows after this are left out, counted alike [s]; None keeps all."""
    note: str = ""
    """Why, for people."""

    def __post_init__(self) -> None:
        if not (isinstance(self.episode, str) and self.episode and isinstance(self.keep, bool)):
            raise DataError(
                f"a decision needs a recording and keep true or false, not {self.episode!r}, {self.keep!r}"
            )
        last_s = math.inf if self.last_s is None else self.last_s
        for name, value in (("first_s", self.first_s), ("last_s", last_s)):
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                raise DataError(f"{self.episode}: {name} is {value!r}; seconds are needed")
        if self.last_s is not None and not math.isfinite(self.last_s):
            raise DataError(f"{self.episode}: last_s is {self.last_s!r}; null keeps all")
        if not 0 <= self.first_s < last_s:
            raise DataError(
                f"{self.episode}: rows from {self.first_s} to {self.last_s} s; the first must be at least 0 and "
                "before the last"
            )
        if not isinstance(self.note, str):
            raise DataError(f"{self.episode}: the note is {self.note!r}; words are needed")

    @property
    def trims(self) -> bool:
        """Whether a part is left out."""
        return self.first_s > 0 or self.last_s is not None


def read_mark(text: str, where: str) -> Mark:
    """Return the decision of one line.

    Raises:
        DataError: it is no JSON object with the fields of `Mark`.
    """
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is no JSON ({error}); correct or remove the line") from error
    allowed = {item.name for item in fields(Mark)}
    if not isinstance(document, dict) or not {"episode"} <= set(document) <= allowed:
        raise DataError(f"{where} holds {text[:80]!r}; an object with {sorted(allowed)} is needed")
    return Mark(**document)


def load_marks(folder: Path) -> dict[str, Mark]:
    """Return the newest decision about each recording of a folder; none where there is no file.

    Raises:
        DataError: a line is malformed, or the file is not UTF-8.
    """
    path = folder / CURATION_NAME
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); save it as that") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    marks = [read_mark(line, f"{path} line {number}") for number, line in numbered]
    return {mark.episode: mark for mark in marks}


def decisions_elsewhere(folder: Path) -> dict[Path, Path]:
    """Return the recordings below a folder that a `curation.jsonl` above or further below names, and which file.

    Raises:
        DataError: such a file is malformed.
    """
    folder = folder.resolve()
    above = [parent / CURATION_NAME for parent in folder.parents]
    below = [path for path in sorted(folder.rglob(CURATION_NAME)) if path.parent != folder]
    return {
        path: file
        for file in (*above, *below)
        for name in load_marks(file.parent)
        if (path := file.parent / name).is_relative_to(folder)
    }


def mark_of(recording: Path) -> Mark | None:
    """Return the decision about one recording in a `curation.jsonl` beside or above it; one that drops it, if any.

    Raises:
        DataError: such a file is malformed.
    """
    path = recording.resolve()
    found = [load_marks(parent).get(path.relative_to(parent).as_posix()) for parent in path.parents]
    marks = [mark for mark in found if mark is not None]
    return min(marks, key=lambda mark: mark.keep, default=None)


def add_mark(folder: Path, mark: Mark) -> None:
    """Add a decision; when this returns it is on the disk, on a line of its own even where the last one has no end."""
    with (folder / CURATION_NAME).open("a+b") as file:
        file.seek(max(0, file.tell() - 1))
        start = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(start + json.dumps(asdict(mark)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
