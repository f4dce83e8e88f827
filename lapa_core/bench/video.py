# SPDX-License-Identifier: Apache-2.0
"""`lapa bench video`: frame pairs per CPU second of three ways to read the same clips; one JSON object last.

The limit decodes every frame of every clip once and resizes it, and does nothing else. A visit of our loader covers
L frames (a clip, or a window of a long one with the way to it) for K pairs; at the limit's rate that is `limit * K / L`
pairs. Since a visit resizes only the frames that its pairs need, and leaves out others to which none refers, its share
of that can exceed 1; `share_of_same_work` holds it against a loop that does just what visits do.
CPU seconds of all processes are counted, not wall time, so that a shared machine does not blur it.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sized
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.bench.clips import make_clips
from lapa_core.bench.cpu_time import cpu_s
from lapa_core.bench.map_style import RandomPairs, make_loader
from lapa_core.data.clip import Clip
from lapa_core.data.clip_frames import make_request, read_request
from lapa_core.data.clip_index import ClipIndex
from lapa_core.data.index import IndexConfig, build_index, open_index_or_scan
from lapa_core.data.mixture import Corpus
from lapa_core.data.pair_stream import PairStream, PoolOptions
from lapa_core.data.scaled_video import SquareScaler
from lapa_core.data.visits import VisitPlan
from lapa_core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class BenchVideoConfig:
    """What is measured, and on which clips."""

    data: Path | None = None
    """Index or data folder; None makes clips like Something-Something's: VP9, 320 x 240, 12 Hz, one key frame."""
    clips: int = 24
    """Clips to make, or to take from the data."""
    frames: int = 48
    """Frames of each clip that is made."""
    image_px: int = 256
    """Side of the frames that are read [px]."""
    gap_s: float = 0.6
    """Time between the frames of a pair [s]."""
    batch_size: int = 32
    """Pairs per batch."""
    workers: int = 1
    """Processes that decode, for ours and for the map-style loader; 0 decodes in this one."""
    seconds: float = 6.0
    """CPU time that each measurement lasts at least [s]."""
    options: PoolOptions = field(default_factory=PoolOptions)
    """How often our loader uses a clip."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise DataError(f"workers is {self.workers}; at least 0 is needed")
        for name in ("clips", "image_px", "batch_size", "seconds"):
            if not getattr(self, name) > 0:
                raise DataError(f"{name} is {getattr(self, name)}; a positive number is needed")
        if self.frames < 2:
            raise DataError(f"frames is {self.frames}; at least 2 are needed")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Something that was counted over CPU time."""

    count: int
    """Frames or pairs."""
    cpu_s: float
    """CPU time of all processes [s]."""

    @property
    def per_cpu_s(self) -> float:
        """Count per CPU second."""
        return self.count / self.cpu_s


def measure(config: BenchVideoConfig, index: ClipIndex) -> dict[str, float]:
    """Measure all ways on the clips of an index; return rates per CPU second, shares and ratios."""
    plan = VisitPlan(
        [Corpus(index=index, gap_s=config.gap_s, weight=1.0)],
        pairs_per_visit=config.options.pairs_per_visit,
        span_frames=config.options.span_frames,
        seed=0,
    )
    visit_frames = mean_visit_frames(plan)
    limit = decode_limit(config, index).per_cpu_s
    same_work = same_work_limit(config, plan).per_cpu_s
    ours = pool_rate(config, plan.corpora).per_cpu_s
    mapped = map_style_rate(config, index).per_cpu_s
    reading = labelling_rate(config, index).per_cpu_s
    most = limit * config.options.pairs_per_visit / visit_frames
    return {
        "decode_resize_frames_per_cpu_s": limit,
        "frames_per_visit": visit_frames,
        "limit_pairs_per_cpu_s": most,
        "same_work_pairs_per_cpu_s": same_work,
        "ours_pairs_per_cpu_s": ours,
        "map_style_pairs_per_cpu_s": mapped,
        "share_of_limit": ours / most,
        "share_of_same_work": ours / same_work,
        "ratio_to_map_style": ours / mapped,
        "labelling_frames_per_cpu_s": reading,
        "labelling_share_of_limit": reading / limit,
    }


def mean_visit_frames(plan: VisitPlan) -> float:
    """Return L: how many frames lie from the key frame before a window to the later frame of its last pair."""
    corpus, lengths = plan.corpora[0], []
    for place, start, stop in plan.windows_W3[0].tolist():
        clip = corpus.index.clips[place]
        pairs_P2 = corpus.index.pairs(clip, corpus.gap_s)[start:stop]
        before = np.searchsorted(clip.keyframes, pairs_P2[0, 0], side="right") - 1
        first = int(clip.keyframes[before]) if before >= 0 else int(pairs_P2[0, 0])
        lengths.append(int(pairs_P2[-1, 1]) - first + 1)
    return float(np.mean(lengths))


def decode_limit(config: BenchVideoConfig, index: ClipIndex) -> Rate:
    """Decode and resize every frame of clip after clip into one buffer."""
    scaler = SquareScaler(config.image_px)

    def one(number: int) -> int:
        clip = index.clips[number % len(index)]
        return _read(index, clip, np.arange(len(clip)), scaler)

    return _repeat(one, config.seconds)


def same_work_limit(config: BenchVideoConfig, plan: VisitPlan) -> Rate:
    """Decode what visits decode and resize what they use into one buffer; counts pairs."""
    scaler, index = SquareScaler(config.image_px), plan.corpora[0].index

    def one(number: int) -> int:
        visit = plan.visit(number)
        _read(index, visit.clip, visit.frames, scaler)
        return len(visit.places_K2)

    return _repeat(one, config.seconds)


def pool_rate(config: BenchVideoConfig, corpora: list[Corpus]) -> Rate:
    """Count the pairs of our loader, after a warm-up that fills its slots."""
    with PairStream(
        corpora, image_px=config.image_px, batch_size=config.batch_size, seed=0, rank=0, world=1, first_step=0,
        workers=config.workers, options=config.options,
    ) as stream:  # fmt: skip
        return _drain((stream.batch(step).x0_BSSC for step in count()), stream.worker_pids, config)


def map_style_rate(config: BenchVideoConfig, index: ClipIndex) -> Rate:
    """Count the pairs of the map-style loader, after a warm-up."""
    pairs = RandomPairs(index, config.gap_s, config.image_px)
    batches = iter(make_loader(pairs, batch_size=config.batch_size, workers=config.workers))
    workers = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    return _drain((first for first, _ in batches), lambda: workers, config)


def labelling_rate(config: BenchVideoConfig, index: ClipIndex) -> Rate:
    """Count the frames that labelling reads: all of each clip, through `ClipIndex.read`."""

    def one(number: int) -> int:
        clip = index.clips[number % len(index)]
        return len(index.read(clip, np.arange(len(clip)), config.image_px))

    return _repeat(one, config.seconds)


def _read(index: ClipIndex, clip: Clip, numbers: NDArray[np.int64], scaler: SquareScaler) -> int:
    out = _buffer(len(numbers), scaler.image_px)
    read_request(make_request(index.root, clip, numbers), scaler, out)
    return len(numbers)


@lru_cache(maxsize=64)
def _buffer(frames: int, image_px: int) -> NDArray[np.uint8]:
    return np.zeros((frames, image_px, image_px, 3), np.uint8)


def _repeat(one: Callable[[int], int], seconds: float) -> Rate:
    """Call `one` with 0, 1, 2, ... for so much CPU time, after one call that warms up."""
    one(0)
    start_s, total = cpu_s(), 0
    for number in count():
        total += one(number)
        if cpu_s() - start_s >= seconds:
            break
    return Rate(count=total, cpu_s=cpu_s() - start_s)


def _drain(
    batches: Iterator[Sized], pids: Callable[[], list[int]], config: BenchVideoConfig
) -> Rate:
    """Take batches for so much CPU time of this process and the workers, after some that warm up."""
    for _ in range(2 * config.options.slots_per_sample):
        next(batches)
    start_s, total = cpu_s(pids()), 0
    while cpu_s(pids()) - start_s < config.seconds:
        total += len(next(batches))
    return Rate(count=total, cpu_s=cpu_s(pids()) - start_s)


def table(result: dict[str, float]) -> list[str]:
    """Return the figures as lines for people."""
    shown = {
        name: f"{value:.2f}" if value < 20 else f"{value:.0f}" for name, value in result.items()
    }
    width = max(map(len, shown))
    return [f"{name:<{width}}  {value:>8}" for name, value in shown.items()]


def main(config: BenchVideoConfig) -> None:
    """Measure; print a table, and one JSON object on the last line."""
    with tempfile.TemporaryDirectory() as folder:
        if config.data is None:
            make_clips(Path(folder) / "clips", clips=config.clips, frames=config.frames)
            index = build_index(
                IndexConfig(
                    data=Path(folder) / "clips",
                    out=Path(folder) / "index",
                    workers=1,
                    progress=False,
                )
            )
        else:
            index = open_index_or_scan(config.data)
            index = replace(index, clips=index.clips[: config.clips])
        result = measure(config, index)
    for line in table(result):
        print(line)
    facts: dict[str, Any] = {
        "bench": "video",
        "config": asdict(config),
        "machine": platform.processor() or platform.machine(),
        "clips": len(index),
    }
    facts.update({name: round(value, 3) for name, value in result.items()})
    sys.stdout.write(json.dumps(facts, default=str) + "\n")
