# SPDX-License-Identifier: Apache-2.0
"""The journal of a scan, one JSON line per item: an interrupted scan goes on, and a repeated one reads only changes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lapa_core.data.clip import Clip
from lapa_core.data.scan import ScanResult

JOURNAL_NAME = "scan.jsonl"
_VERSION = 3
"""Raise when scanning finds something else in an unchanged file."""


class ScanJournal:
    """Appends results to `scan.jsonl`, and gives back those of an earlier scan with the same settings."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path = folder / JOURNAL_NAME
        self._head = json.dumps({"version": _VERSION, "settings": settings}, sort_keys=True)

    def read(self) -> dict[str, ScanResult]:
        """Return the newest result of each item; a last line that was cut off is passed over."""
        if not self.path.is_file():
            return {}
        with self.path.open(encoding="utf-8") as stream:
            if stream.readline().rstrip("\n") != self._head:
                return {}
            whole = (line for line in stream if line.endswith("\n"))
            results = (_from_json(json.loads(line)) for line in whole)
            return {result.path: result for result in results}

    def rewrite(self, results: Iterable[ScanResult]) -> None:
        """Start the file anew with some results."""
        fresh = self.path.with_name(f".{self.path.name}")
        with fresh.open("w", encoding="utf-8") as stream:
            stream.write(self._head + "\n")
            stream.writelines(_to_line(result) for result in results)
        fresh.replace(self.path)

    def append(self, results: Iterable[ScanResult]) -> None:
        """Add results, and hand them to the operating system at once."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.writelines(_to_line(result) for result in results)


def _to_line(result: ScanResult) -> str:
    clips = [_clip_to_json(clip) for clip in result.clips]
    document = {
        "path": result.path, "stamp": result.stamp, "unreadable": result.unreadable, "clips": clips,
    }  # fmt: skip
    return json.dumps(document, separators=(",", ":")) + "\n"


def _from_json(document: dict[str, Any]) -> ScanResult:
    return ScanResult(
        path=document["path"],
        stamp=document["stamp"],
        unreadable=[(name, reason) for name, reason in document["unreadable"]],
        clips=[_clip_from_json(clip) for clip in document["clips"]],
    )


def _clip_to_json(clip: Clip) -> dict[str, Any]:
    fields = {name: getattr(clip, name) for name in Clip.__dataclass_fields__}
    base = [clip.time_base.numerator, clip.time_base.denominator]
    return {
        **fields,
        "time_base": base,
        "pts": clip.pts.tolist(),
        "keyframes": clip.keyframes.tolist(),
    }


def _clip_from_json(fields: dict[str, Any]) -> Clip:
    return Clip(
        **{
            **fields,
            "time_base": Fraction(*fields["time_base"]),
            "pts": np.asarray(fields["pts"], np.int64),
            "keyframes": np.asarray(fields["keyframes"], np.int32),
        }
    )
