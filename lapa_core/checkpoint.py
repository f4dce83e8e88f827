# SPDX-License-Identifier: Apache-2.0
"""Self-describing checkpoints: a folder with safetensors files and `config.json`; no pickle, no flags at load time.

A checkpoint is written under a temporary name and renamed, so that a folder of this name is always whole. `torch`
is imported only when tensors are read or written: the config alone can be read on a machine without it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lapa_core
from lapa_core.checkpoint_files import (
    MAX_FILE_BYTES,
    read_tensors,
    write_tensors,
)
from lapa_core.checkpoint_files import file_sha256 as file_sha256
from lapa_core.errors import CheckpointError
from lapa_core.paths import PACKAGE_DIR, sync

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"


def save_checkpoint(
    directory: str | Path,
    tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    config: dict[str, Any],
    *,
    beside: Callable[[Path], None] | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> Path:
    """Write a checkpoint; an older one of the same name is replaced only when the new one is complete.

    Args:
        directory: where it shall lie.
        tensors: everything that `load_checkpoint` shall give back; any dtype that safetensors knows. Pairs of name and
            tensor are taken one by one, so that a model larger than the memory can be written.
        config: JSON-able description; must have a `kind`. The weights' SHA-256 is added to it.
        beside: writes further files (a tokenizer's) into the directory before it gets its name.
        max_file_bytes: tensors beyond this go into another file, and an index names each one's.

    Raises:
        CheckpointError: the config has no `kind` or is not JSON-able.
    """
    directory = Path(directory)
    if not isinstance(config.get("kind"), str):
        raise CheckpointError(
            f"a checkpoint's config needs a 'kind'; given keys are {sorted(config)}"
        )
    fresh = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")
    fresh.mkdir(parents=True)
    try:
        pairs = tensors.items() if isinstance(tensors, Mapping) else tensors
        described = {**config, "weights_sha256": write_tensors(fresh, pairs, max_file_bytes)}
        write_config(fresh, described)
        if beside is not None:
            beside(fresh)
        sync(fresh)
        swap_in(fresh, directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return directory


def write_config(directory: Path, config: dict[str, Any]) -> None:
    """Write a checkpoint's config.json.

    Raises:
        CheckpointError: it is not JSON-able.
    """
    try:
        text = json.dumps(config, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the config of {directory} is not JSON-able: {error}") from error
    (directory / CONFIG_FILE).write_text(text + "\n")
    sync(directory / CONFIG_FILE)


def load_checkpoint(
    directory: str | Path, kind: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors on the CPU, config) of a checkpoint, checked against the hash in its config.

    Raises:
        CheckpointError: missing, damaged or of another kind.
    """
    directory = Path(directory)
    config = load_config(directory, kind)
    return read_tensors(directory, config.get("weights_sha256")), config


def load_config(directory: str | Path, kind: str | None = None) -> dict[str, Any]:
    """Return the config of a checkpoint without reading its weights.

    Raises:
        CheckpointError: missing, not JSON, or of another kind than asked for.
    """
    path = Path(directory) / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{directory} is no checkpoint: it has no {CONFIG_FILE}. Give the folder that holds one"
        )
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or "kind" not in config:
        raise CheckpointError(f"{path} does not describe a checkpoint: it has no 'kind'")
    if kind is not None and config["kind"] != kind:
        raise CheckpointError(
            f"{directory} is a checkpoint of kind {config['kind']!r}; {kind!r} is needed here"
        )
    return config


def provenance() -> dict[str, str]:
    """Return what made this checkpoint: command line, commit (with `+` when the tree was dirty), version, UTC date.

    Where a machine keeps its files is nobody's business: see `_portable`.
    """
    command = " ".join([Path(sys.argv[0]).name, *map(_portable, sys.argv[1:])])
    commit = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    dirty = "+" if _git("status", "--porcelain", "--untracked-files=no") else ""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {
        "command": command,
        "commit": commit + dirty,
        "version": lapa_core.__version__,
        "date": date,
    }


def _portable(argument: str) -> str:
    """Return an argument whose absolute path, alone or after `=`, is relative to here, or a bare name if elsewhere."""
    before, path = "", argument
    if not os.path.isabs(argument):
        before, _, path = argument.partition("=")
    if not os.path.isabs(path):
        return argument
    here = Path.cwd()
    given = Path(os.path.normpath(path))
    relative = given.relative_to(here) if given.is_relative_to(here) else Path(given.name)
    return f"{before}={relative}" if before else str(relative)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE_DIR), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""  # installed without its repository


def swap_in(fresh: Path, directory: Path) -> None:
    """Give a complete new checkpoint its name; an older one of that name goes.

    Raises:
        CheckpointError: the name is that of a folder of something else, which is left alone.
    """
    if not directory.exists():
        fresh.rename(directory)
        return
    if not (directory / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"{directory} exists and is no checkpoint; it is left alone. Give another folder"
        )
    old = directory.with_name(f"{fresh.name}.old")
    directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old)
