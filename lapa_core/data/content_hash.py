# SPDX-License-Identifier: Apache-2.0
"""A hash that tells files apart, and finds copies, without reading all of a large one. Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

BLOCK_BYTES = 1 << 20
"""Of a file larger than three blocks, the first, the middle and the last are read."""


def hash_file(path: Path) -> str:
    """Return the BLAKE2b (16 bytes, hexadecimal) of a file's size and content, or of three blocks of it."""
    size = path.stat().st_size
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    with path.open("rb") as stream:
        if size <= 3 * BLOCK_BYTES:
            digest.update(stream.read())
        else:
            for offset in (0, (size - BLOCK_BYTES) // 2, size - BLOCK_BYTES):
                stream.seek(offset)
                digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()


def hash_bytes(data: bytes) -> str:
    """Return the BLAKE2b (16 bytes, hexadecimal) of bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def hash_texts(parts: Iterable[str]) -> str:
    """Return the BLAKE2b (16 bytes, hexadecimal) of texts in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()
