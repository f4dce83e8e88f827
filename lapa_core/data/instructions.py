# SPDX-License-Identifier: Apache-2.0
"""`instructions.jsonl`: what happens in each clip of a folder, in words. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from lapa_core.errors import DataError

INSTRUCTIONS_NAME = "instructions.jsonl"


def read_instructions(
    root: Path, known: Collection[str], path: Path | None = None
) -> dict[str, str]:
    """Return the text of each clip that has one; one JSON object per line, `{"video": ..., "instruction": ...}`.

    Args:
        root: data folder.
        known: clips that exist, by their paths in the data folder.
        path: file to read; None takes `instructions.jsonl` in the data folder, which may be missing.

    Raises:
        DataError: a line is malformed, names a missing clip, or names one twice.
    """
    if path is None:
        path = root / INSTRUCTIONS_NAME
        if not path.is_file():
            return {}
    elif not path.is_file():
        raise DataError(f"{path}: the file of instructions is missing; correct its name")
    instructions: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); save it as that") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            video, instruction = str(entry["video"]), entry["instruction"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path} line {number} is {line[:80]!r}; {{"video": ..., "instruction": ...}} '
                "is needed"
            ) from error
        if video not in known or video in instructions or not isinstance(instruction, str):
            found = "named twice" if video in instructions else "missing or without a text"
            raise DataError(f"{path} line {number}: video {video!r} is {found}; correct the line")
        instructions[video] = instruction
    return instructions
