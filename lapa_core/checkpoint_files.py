# SPDX-License-Identifier: Apache-2.0
"""The tensors of a checkpoint on disk: one `model.safetensors`, or several files and an index.

Large models are written file by file, so that no more than one file's tensors are in memory. The layout is the one
that `transformers` writes: `model-00001-of-00004.safetensors`, ... and `model.safetensors.index.json` with
`weight_map`, name of a tensor -> its file. Beside the total size the index keeps every file's SHA-256, so that the
hash of the index stands for all of them. `torch` is imported only when tensors are read or written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lapa_core.errors import CheckpointError
from lapa_core.paths import sync

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_FILE_BYTES = 4_000_000_000
"""Most bytes of tensors in one file, unless a single tensor is larger."""


def write_tensors(
    directory: Path, tensors: Iterable[tuple[str, Tensor]], max_file_bytes: int = MAX_FILE_BYTES
) -> str:
    """Write tensors as they come into an empty directory and return the SHA-256 that stands for all.

    Args:
        directory: an existing directory.
        tensors: names and tensors; each is taken once, and may be made on the fly.
        max_file_bytes: most bytes in one file; the first tensor of a file may be larger.
    """
    files: list[tuple[Path, list[str]]] = []
    held: dict[str, Tensor] = {}
    held_bytes = total_bytes = 0
    for name, given in tensors:
        tensor = given.detach().cpu().contiguous()
        if held and held_bytes + tensor.nbytes > max_file_bytes:
            files.append(_write_part(directory, len(files), held))
            held, held_bytes = {}, 0
        held[name] = tensor
        held_bytes += tensor.nbytes
        total_bytes += tensor.nbytes
    files.append(_write_part(directory, len(files), held))
    if len(files) == 1:
        files[0][0].rename(directory / WEIGHTS_FILE)
        return file_sha256(directory / WEIGHTS_FILE)
    named = {}
    for number, (part, names) in enumerate(files, start=1):
        path = directory / f"model-{number:05d}-of-{len(files):05d}.safetensors"
        part.rename(path)
        named[path.name] = names
    return write_index(directory, named, total_bytes)


def write_index(directory: Path, names_of: dict[str, list[str]], total_bytes: int) -> str:
    """Write the index of weight files that lie in a directory and return its SHA-256.

    Args:
        directory: where the files lie; each is read once, for its hash.
        names_of: file name -> names of the tensors in it.
        total_bytes: of all tensors together.
    """
    index = {
        "metadata": {
            "total_size": total_bytes,
            "sha256": {name: file_sha256(directory / name) for name in names_of},
        },
        "weight_map": {name: file for file, names in names_of.items() for name in names},
    }
    path = directory / INDEX_FILE
    path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    sync(path)
    return file_sha256(path)


def read_tensors(directory: Path, sha256: str | None) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint on the CPU, mapped from their files, checked against its hash.

    Raises:
        CheckpointError: a file is missing, damaged or of another checkpoint.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in _checked_files(directory, sha256):
        try:
            tensors.update(load_file(path))
        except SafetensorError as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
    return tensors


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write_part(directory: Path, number: int, held: dict[str, Tensor]) -> tuple[Path, list[str]]:
    from safetensors.torch import save_file

    path = directory / f"part-{number:05d}.safetensors"
    save_file(held, path)
    sync(path)
    return path, list(held)


def _checked_files(directory: Path, sha256: str | None) -> list[Path]:
    """Return the weight files after checking that each is the one that was written."""
    index_path, weights = directory / INDEX_FILE, directory / WEIGHTS_FILE
    if not index_path.is_file():
        if not weights.is_file():
            raise CheckpointError(f"{directory} has no {WEIGHTS_FILE}; copy the whole folder again")
        _check(weights, sha256)
        return [weights]
    _check(index_path, sha256)
    digests = json.loads(index_path.read_text())["metadata"]["sha256"]
    files = [directory / name for name in sorted(digests)]
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"{directory} has no {path.name}; copy the whole folder again")
        _check(path, digests[path.name])
    return files


def _check(path: Path, sha256: str | None) -> None:
    if (found := file_sha256(path)) != sha256:
        raise CheckpointError(
            f"{path} has SHA-256 {found[:12]}..., its checkpoint says {str(sha256)[:12]}...; "
            "it is damaged or was mixed with another checkpoint: copy the whole folder again"
        )
