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
        DataError: a line is malformed.
    """
    path = folder / CURATION_NAME
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    marks = [read_mark(line, f"{path} line {number}") for number, line in numbered]
    return {mark.episode: mark for mark in marks}


def add_mark(folder: Path, mark: Mark) -> None:
    """Add a decision; when this returns it is on the disk."""
    handle = os.open(folder / CURATION_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(asdict(mark)) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)
