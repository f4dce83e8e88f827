# SPDX-License-Identifier: Apache-2.0
"""What makes a second call fast: a step writes down a hash of its inputs when it has succeeded."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(parts: Iterable[str | bytes]) -> str:
    """Return one hash over all parts, in order."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def is_current(stamp: Path, key: str) -> bool:
    """Return whether the step that owns this stamp last succeeded with the same inputs."""
    return stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == key


def write(stamp: Path, key: str) -> None:
    """Record that the step has succeeded with these inputs."""
    stamp.write_text(key + "\n", encoding="utf-8")
