# SPDX-License-Identifier: Apache-2.0
"""Self-describing checkpoints: a folder with `model.safetensors` and `config.json`; no pickle, no flags at load time.

A checkpoint is written under a temporary name and renamed, so that a folder of this name is always whole. `torch`
is imported only when tensors are read or written: the config alone can be read on a machine without it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lapa_core
from lapa_core.errors import CheckpointError
from lapa_core.paths import PACKAGE_DIR, sync

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


def save_checkpoint(
    directory: str | Path, tensors: dict[str, Tensor], config: dict[str, Any]
) -> Path:
    """Write a checkpoint; an older one of the same name is replaced only when the new one is complete.

    Args:
        directory: where it shall lie.
        tensors: everything that `load_checkpoint` shall give back; any dtype that safetensors knows.
        config: JSON-able description; must have a `kind`. The weights' SHA-256 is added to it.

    Raises:
        CheckpointError: the config has no `kind` or is not JSON-able.
    """
    from safetensors.torch import save_file

    directory = Path(directory)
    if not isinstance(config.get("kind"), str):
        raise CheckpointError(
            f"a checkpoint's config needs a 'kind'; given keys are {sorted(config)}"
        )
    fresh = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")
    fresh.mkdir(parents=True)
    try:
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()},
            fresh / WEIGHTS_FILE,
        )
        described = {**config, "weights_sha256": file_sha256(fresh / WEIGHTS_FILE)}
        try:
            text = json.dumps(described, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the config of {directory} is not JSON-able: {error}") from error
        (fresh / CONFIG_FILE).write_text(text + "\n")
        for path in (fresh / WEIGHTS_FILE, fresh / CONFIG_FILE, fresh):
            sync(path)
        _swap_in(fresh, directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return directory


def load_checkpoint(
    directory: str | Path, kind: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors on the CPU, config) of a checkpoint, checked against the hash in its config.

    Raises:
        CheckpointError: missing, damaged or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    directory = Path(directory)
    config = load_config(directory, kind)
    weights = directory / WEIGHTS_FILE
    if not weights.is_file():
        raise CheckpointError(f"{directory} has no {WEIGHTS_FILE}; copy the whole folder again")
    if (found := file_sha256(weights)) != config.get("weights_sha256"):
        raise CheckpointError(
            f"{weights} has SHA-256 {found[:12]}..., its {CONFIG_FILE} says "
            f"{str(config.get('weights_sha256'))[:12]}...; "
            "it is damaged or was mixed with another checkpoint: copy the whole folder again"
        )
    try:
        return load_file(weights), config
    except SafetensorError as error:
        raise CheckpointError(f"{weights} cannot be read: {error}") from error


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
    """Return what made this checkpoint: command line, commit (with `+` when the tree was dirty), version, UTC date."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    commit = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    dirty = "+" if _git("status", "--porcelain", "--untracked-files=no") else ""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {
        "command": command,
        "commit": commit + dirty,
        "version": lapa_core.__version__,
        "date": date,
    }


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE_DIR), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""  # installed without its repository


def _swap_in(fresh: Path, directory: Path) -> None:
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


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
