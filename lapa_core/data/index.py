# SPDX-License-Identifier: Apache-2.0
"""`lapa data index`: scan a data folder once, for training and labelling at size.

Writes `index.json` (settings, counts, what cannot be read and why, copies), `clips.parquet`, `pts.parquet` and the
scan's own journal. Nothing is decoded unless motion is asked for. Imports numpy and pyarrow.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lapa_core.cluster import map_shards
from lapa_core.data.cache import default_cache_dir
from lapa_core.data.clip import Clip
from lapa_core.data.clip_index import INDEX_NAME, ClipIndex
from lapa_core.data.clip_tables import write_tables
from lapa_core.data.content_hash import hash_bytes, hash_texts
from lapa_core.data.scan import ScanResult, scan_item
from lapa_core.data.scan_items import ScanItem, count_not_read, list_items, stamp_of
from lapa_core.data.scan_journal import ScanJournal
from lapa_core.errors import DataError
from lapa_core.paths import alone_in

__all__ = ["ClipIndex", "IndexConfig", "build_index", "main", "open_index_or_scan"]

_SHARD = 16
"""Items that a worker process scans in one go."""
_SHOWN = 10
"""Unreadable files that are printed; `index.json` lists all."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Scan a data folder once: times of all frames, key frames, hashes, and what cannot be read."""

    data: Path
    """Videos, sub-folders of frames, LeRobot v3, RLDS or MCAP recordings; sub-folders are searched."""
    out: Path
    """Folder of the index. A scan that was interrupted goes on; unchanged files are not scanned again."""
    workers: int = 2
    """Processes that scan."""
    camera: str | None = None
    """Camera of data sets with several, by its full or last name; None takes the first that has colours."""
    fps: float | None = None
    """Frames per second of what does not say it itself: folders of frames, unknown RLDS sets."""
    instructions: Path | None = None
    """File with a text per clip; None is `instructions.jsonl` in the data folder, if there is one."""
    motion: bool = False
    """Measure how much moves in each clip, for `min_motion` of a mixture. Decodes a frame a second: slower."""
    ray: str = ""
    """Address of a Ray cluster (`auto`, `host:port`, `local`) to scan on; empty scans on this machine."""
    progress: bool = True
    """Show a bar."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise DataError(f"workers is {self.workers}; at least 1 is needed")


def build_index(config: IndexConfig) -> ClipIndex:
    """Scan what is new or changed, write the index and open it.

    Raises:
        DataError: no data set, or no clip of it can be read.
    """
    root = config.data.resolve()
    items = list_items(
        root,
        camera=config.camera,
        fps=config.fps,
        instructions=config.instructions,
        motion=config.motion,
    )
    with alone_in(config.out):  # who waited for another process then finds nothing new to scan
        return _write_index(config, root, items)


def _write_index(config: IndexConfig, root: Path, items: list[ScanItem]) -> ClipIndex:
    results = _scan(config, root, items)
    clips = [clip for result in results for clip in result.clips]
    clips = [replace(clip, number=number) for number, clip in enumerate(clips)]
    facts = _facts(config, root, results, clips)
    facts["not_read"] = count_not_read(root, items, config.out.resolve())
    write_tables(config.out, clips)
    fresh = config.out / f".{INDEX_NAME}"
    fresh.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    fresh.replace(config.out / INDEX_NAME)
    if not clips:
        name, reason = next(iter(facts["unreadable"].items()), ("", "there are no files"))
        raise DataError(
            f"no clip in the {len(items)} files of {config.data} can be read; the first of "
            f"{len(facts['unreadable'])} reasons: {name}: {reason}"
        )
    return ClipIndex.load(config.out)


def open_index_or_scan(
    path: str | Path, *, workers: int = 2, progress: bool = True, fps: float | None = None
) -> ClipIndex:
    """Open an index, or the index of a data folder, which is scanned into the cache when it is new or changed.

    Raises:
        DataError: neither an index nor a data folder, or nothing in it can be read.
    """
    path = Path(path)
    if path.name == INDEX_NAME or (path / INDEX_NAME).is_file():
        return ClipIndex.load(path)
    name = hashlib.sha256(f"{path.resolve()} {fps}".encode()).hexdigest()[:32]
    out = default_cache_dir().parent / "index" / name
    return build_index(IndexConfig(data=path, out=out, workers=workers, fps=fps, progress=progress))


def scan_shard(items: list[ScanItem]) -> list[ScanResult]:
    """Scan some items in a worker process."""
    return [scan_item(item) for item in items]


def _scan(config: IndexConfig, root: Path, items: list[ScanItem]) -> list[ScanResult]:
    """Return a result per item in their order, from the journal where the item is what it was."""
    settings = {
        "data": str(root),
        "camera": config.camera,
        "fps": config.fps,
        "motion": config.motion,
    }
    journal = ScanJournal(config.out, settings)
    known = _unchanged(journal.read(), items)
    journal.rewrite(known.values())
    new = [item for item in items if item.path not in known]
    shards = [new[start : start + _SHARD] for start in range(0, len(new), _SHARD)]
    with tqdm(
        total=len(items), initial=len(known), desc="scanning", unit="file", disable=not config.progress
    ) as bar:  # fmt: skip
        for _, results in map_shards(scan_shard, shards, workers=config.workers, ray=config.ray):
            journal.append(results)
            known.update({result.path: result for result in results})
            bar.update(len(results))
    return [_with_instruction(known[item.path], item) for item in items]


def _unchanged(known: dict[str, ScanResult], items: list[ScanItem]) -> dict[str, ScanResult]:
    kept = {}
    for item in items:
        result = known.get(item.path)
        if result is not None and result.stamp and result.stamp == stamp_of(item):
            kept[item.path] = result
    return kept


def _with_instruction(result: ScanResult, item: ScanItem) -> ScanResult:
    """Put in the texts that lie beside the file; where there is none, the file's own stays."""
    texts = {f"{item.path}#{e.index:06d}": e.instruction for e in item.episodes}
    clips = [
        replace(clip, instruction=texts.get(clip.id, item.instruction) or clip.instruction)
        for clip in result.clips
    ]
    return replace(result, clips=clips)


def _facts(
    config: IndexConfig, root: Path, results: list[ScanResult], clips: list[Clip]
) -> dict[str, Any]:
    unreadable = {name: reason for result in results for name, reason in result.unreadable}
    first: dict[str, str] = {}
    copies = {
        clip.id: first[clip.hash]
        for clip in clips
        if first.setdefault(clip.hash, clip.id) != clip.id
    }
    identity = (
        f"{clip.id} {clip.hash} {clip.time_base} {hash_bytes(clip.pts.tobytes())}" for clip in clips
    )
    return {
        "data": str(root),
        "camera": config.camera,
        "fps": config.fps,
        "motion": config.motion,
        "files": len(results),
        "clips": len(clips),
        "kinds": dict(Counter(clip.kind for clip in clips)),
        "frames": sum(len(clip) for clip in clips),
        "duration_s": round(sum(clip.duration_s for clip in clips), 3),
        "with_instruction": sum(bool(clip.instruction) for clip in clips),
        "hash": hash_texts(identity),
        "unreadable_count": len(unreadable),
        "unreadable": unreadable,
        "copies_count": len(copies),
        "copies": copies,
    }


def summary(index: ClipIndex) -> list[str]:
    """Say in lines what an index holds and what it left out."""
    facts = index.facts
    lines = [
        f"{facts['clips']} clips ({facts['frames']} frames, {facts['duration_s'] / 3600:.2f} h) in "
        f"{facts['files']} files; {facts['with_instruction']} with an instruction",
        f"{facts['unreadable_count']} unreadable, {facts['copies_count']} copies of another clip",
    ]
    if others := facts.get("not_read"):
        told = ", ".join(f"{count} {suffix}" for suffix, count in others.items())
        lines.append(f"{sum(others.values())} files of other kinds are not read: {told}")
    shown = list(facts["unreadable"].items())[:_SHOWN]
    lines += [f"  UNREADABLE {name}: {reason}" for name, reason in shown]
    lines += [f"  COPY {name} is {other}" for name, other in list(facts["copies"].items())[:_SHOWN]]
    hidden = max(0, facts["unreadable_count"] - _SHOWN) + max(0, facts["copies_count"] - _SHOWN)
    return [*lines, f"  and {hidden} more: see {INDEX_NAME}"] if hidden else lines


def main(config: IndexConfig) -> None:
    """Scan, and say what was found."""
    index = build_index(config)
    print(f"index: {config.out}")
    for line in summary(index):
        print(line)
