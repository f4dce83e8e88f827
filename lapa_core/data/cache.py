# SPDX-License-Identifier: Apache-2.0
"""Decoded frames on disk, so that a second training run starts at once.

A cache entry is a folder named by a hash of what the data set's files are (name, size, time of
change, and the metadata's text), the camera and the size. It is built beside its place and renamed,
so that a half-written one is never read and two runs may build at the same time. Imports numpy.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lapa_core.data.episode import EpisodeSource
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError

_LAYOUT = 2
"""Raise when the meaning of a cached file changes."""


def default_cache_dir() -> Path:
    """Return `$LAPA_CACHE`, or `frames` under the user's cache folder."""
    if os.environ.get("LAPA_CACHE"):
        return Path(os.environ["LAPA_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lapa" / "frames"


def fingerprint(source: EpisodeSource, image_px: int) -> str:
    """Name the content of a data set as read at one size by one camera, without reading its frames."""
    digest = hashlib.sha256(f"{_LAYOUT} {image_px} {getattr(source, 'camera', None)}".encode())
    for path in sorted(p for p in source.path.rglob("*") if p.is_file()):
        status = path.stat()
        name = path.relative_to(source.path).as_posix()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        if path.suffix in (".json", ".jsonl"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def load_or_build(
    source: EpisodeSource, image_px: int, cache_dir: str | Path | None, *, progress: bool
) -> FrameStore:
    """Open the cache entry of a source, after building it if it is missing."""
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    entry = root / fingerprint(source, image_px)
    if not entry.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=root))
        try:
            _build(source, image_px, building, progress)
            try:
                building.rename(entry)
            except OSError:
                if not entry.is_dir():  # another run may have finished the same entry first
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return _open(entry)


def _build(source: EpisodeSource, image_px: int, folder: Path, progress: bool) -> None:
    if not len(source):
        raise DataError(f"{source.path} has no episodes; at least one is needed")
    lengths, instructions, rates, times = [], [], [], []
    actions: list[NDArray[np.float32]] = []
    with (folder / "frames.u8").open("wb") as stream:
        for index in tqdm(
            range(len(source)), desc="decoding", unit="episode", disable=not progress
        ):
            episode = source.episode(index, image_px)
            stream.write(np.ascontiguousarray(episode.frames).data)
            lengths.append(len(episode))
            instructions.append(episode.instruction)
            rates.append(episode.fps)
            times.append(episode.timestamps_s)
            if (episode.actions is None) != (not actions) and index:
                raise DataError(
                    f"{episode.source}: only some episodes have actions; split the data set"
                )
            if episode.actions is not None:
                actions.append(episode.actions)
    np.save(folder / "timestamps.npy", np.concatenate(times))
    np.save(folder / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    if actions:
        np.save(folder / "actions.npy", np.concatenate(actions).astype(np.float32))
    meta = {"instructions": instructions, "fps": float(np.median(rates)), "image_px": image_px}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _open(entry: Path) -> FrameStore:
    meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
    offsets: NDArray[np.int64] = np.load(entry / "offsets.npy")
    shape = (int(offsets[-1]), meta["image_px"], meta["image_px"], 3)
    if (entry / "frames.u8").stat().st_size != np.prod(shape):
        raise DataError(f"{entry} is not what it was when it was written: delete this folder")
    actions = entry / "actions.npy"
    return FrameStore(
        frames=np.memmap(entry / "frames.u8", dtype=np.uint8, mode="r", shape=shape),
        episode_offsets=offsets,
        instructions=meta["instructions"],
        fps=meta["fps"],
        timestamps_s=np.load(entry / "timestamps.npy"),
        actions=np.load(actions) if actions.is_file() else None,
    )
