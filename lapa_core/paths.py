# SPDX-License-Identifier: Apache-2.0
"""Where the shared files are (at the root of a clone, or in a colcon install), and when a written one is safe."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lapa_core.errors import SetupError

PACKAGE_DIR = Path(__file__).resolve().parent
CHECKPOINTS_DIR = PACKAGE_DIR / "checkpoints"
"""Checkpoints that ship inside the package."""


def config_dir() -> Path:
    """Return the folder with `robots/` and `nodes/`: the clone's `config/`, else `share/lapa_bringup/config`.

    Raises:
        SetupError: neither exists.
    """
    candidates = [PACKAGE_DIR.parent / "config"]
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        candidates.append(Path(prefix) / "share" / "lapa_bringup" / "config")
    for candidate in candidates:
        if (candidate / "robots").is_dir():
            return candidate
    raise SetupError(
        f"no config/robots beside {PACKAGE_DIR} and no lapa_bringup in AMENT_PREFIX_PATH; "
        "run from a clone, or source the workspace's install/setup.bash"
    )


def sync(path: Path) -> None:
    """Wait until a written file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process of this machine is in this block with the same folder; make the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
