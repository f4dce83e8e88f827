# SPDX-License-Identifier: Apache-2.0
"""Batches of frame pairs from clips that are decoded once each and used several times.

A random pair costs the decoding of everything since the last key frame. Here a clip is decoded in one go and K of its
pairs are used over the next steps, mixed with those of other clips.

Which pair is where is a pure function of (seed, step). The i-th sample of the global batch has M slots of its own; at
step t it draws from one of them, in a fresh order every M steps. A slot's clip is replaced after K draws; phases are
spread so that each step replaces about as many. Ranks own consecutive samples, so no two decode the same clip, and
their parts laid side by side are exactly the batch of one process. To resume at step s only the clips that are live
then are decoded.

A clip that cannot be decoded is reported, counted in `failures`, and replaced by another of the same corpus; which one
is a function of (seed, visit) as well. Imports numpy.

Shapes: B pairs of this rank, S image side [px], M slots per sample, G pairs of all ranks.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.clip_frames import make_request
from lapa_core.data.clip_pool import ClipPool, check_memory
from lapa_core.data.index import open_index_or_scan
from lapa_core.data.mixture import SUFFIXES, Corpus, load_mixture, open_corpus
from lapa_core.data.pair_batch import PairBatch
from lapa_core.data.visits import Visit, VisitPlan
from lapa_core.errors import ContractError, DataError, LapaError

log = logging.getLogger(__name__)

_ATTEMPTS = 20
"""So many clips in a row may fail before the run is stopped."""


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """How often decoded clips are used, and how many are kept."""

    pairs_per_visit: int = 24
    """K, pairs drawn from a decoded window. Fewer mix better, more cost less decoding: cost per pair goes as 1 / K."""
    span_frames: int = 48
    """Most first frames of a window. Longer ones spread a visit's pairs further, and cost decoding and no memory."""
    slots_per_sample: int = 2
    """M, clips from which each sample of a batch is drawn in turn. More mix better over time; memory goes as M."""
    ahead: float = 2.0
    """Slots for clips that are decoded before they are needed, in steps' worth of clips and at least 8."""

    def __post_init__(self) -> None:
        for name in ("pairs_per_visit", "span_frames", "slots_per_sample"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if self.ahead < 0:
            raise DataError(f"ahead is {self.ahead}; at least 0 is needed")


class _Draw(NamedTuple):
    """What one sample of one step is taken from."""

    visit: int
    """Number of the visit."""
    place: int
    """Which of its K pairs."""
    last: bool
    """Whether the visit is used up by this draw."""


class _Live:
    """A visit in memory, or on its way there."""

    def __init__(self, slot: int, visit: Visit) -> None:
        self.slot, self.visit = slot, visit
        self.attempt, self.ticket = 0, -1
        self.ready = False


def open_pairs(
    path: str | Path,
    *,
    image_px: int,
    batch_size: int,
    gap_s: float | None = None,
    gap_range_s: tuple[float, float] | None = None,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    first_step: int = 0,
    workers: int = 2,
    max_clips: int = 0,
    options: PoolOptions | None = None,
) -> PairStream:
    """Open an index, a data folder or a mixture file as batches of pairs.

    Args:
        path: folder with `index.json`, data folder (scanned first), or mixture (`.yaml`).
        image_px: side of the frames [px].
        batch_size: pairs per step over all ranks.
        gap_s: time between the frames of a pair [s]; a mixture has its own for each corpus.
        gap_range_s: draw each pair's gap uniformly between these two instead [s], the upper one cut where the clip
            ends; a mixture has `gap_max_s` for it.
        seed: seed of order and choice.
        rank: which part of each batch is this process's.
        world: number of parts.
        first_step: step that is asked for first.
        workers: decoding processes of this rank; 0 decodes in this one. Batches do not depend on it.
        max_clips: use only the first clips of each corpus; 0 uses all.
        options: how often clips are used, and how many are kept.

    Raises:
        DataError: no such data, no pair so far apart, or a pool larger than the memory.
        ContractError: the batch cannot be shared evenly.
    """
    corpora = open_corpora(path, gap_s, gap_range_s)
    if max_clips:
        corpora = [
            replace(c, index=replace(c.index, clips=c.index.clips[:max_clips])) for c in corpora
        ]
    return PairStream(
        corpora, image_px=image_px, batch_size=batch_size, seed=seed, rank=rank,
        world=world, first_step=first_step, workers=workers, options=options or PoolOptions(),
    )  # fmt: skip


def open_corpora(
    path: str | Path, gap_s: float | None, gap_range_s: tuple[float, float] | None = None
) -> list[Corpus]:
    """Open what `open_pairs` can be given as a list of corpora."""
    if Path(path).suffix in SUFFIXES:
        if gap_range_s is not None:
            raise ContractError(
                f"gap_range_s is {gap_range_s}, but {path} is a mixture; write gap_s and gap_max_s into it"
            )
        return [open_corpus(config) for config in load_mixture(path)]
    shortest_s, longest_s = gap_range_s if gap_range_s is not None else (gap_s, None)
    if shortest_s is None:
        raise DataError(f"{path}: gap_s is needed, the time between the frames of a pair [s]")
    index = open_index_or_scan(path)
    return [Corpus(index=index, gap_s=shortest_s, gap_max_s=longest_s)]


class PairStream:
    """Batches of pairs as `lapa_core.train.pairs.PairBatches`; arguments as of `open_pairs`."""

    def __init__(
        self,
        corpora: Sequence[Corpus],
        *,
        image_px: int,
        batch_size: int,
        seed: int,
        rank: int,
        world: int,
        first_step: int,
        workers: int,
        options: PoolOptions,
    ) -> None:
        share, rest = divmod(batch_size, world)
        if rest or not share or not 0 <= rank < world:
            raise ContractError(
                f"batch_size is {batch_size}, rank {rank} of {world}; give a multiple of the processes"
            )
        self.batch_size, self.seed, self.options = batch_size, seed, options
        self.failures: dict[str, str] = {}
        """Clips that could not be decoded, by their id, with the reason."""
        self.failed_visits = 0
        """How often another clip had to take the place of one that could not be decoded."""
        self._samples = range(rank * share, (rank + 1) * share)
        self._plan = VisitPlan(
            corpora, pairs_per_visit=options.pairs_per_visit, span_frames=options.span_frames, seed=seed
        )  # fmt: skip
        ahead = max(8, round(options.ahead * share / options.pairs_per_visit))
        slots = share * options.slots_per_sample + ahead
        check_memory(slots * 2 * options.pairs_per_visit * image_px**2 * 3)
        self._pool = ClipPool(
            slots=slots, frames=2 * options.pairs_per_visit, image_px=image_px, workers=workers
        )
        self._free = deque(range(slots))
        self._live: dict[int, _Live] = {}
        self._asked: dict[int, int] = {}  # visit of each ticket
        self._abandoned: dict[int, int] = {}  # slot of each ticket that nobody needs any more
        self._tickets = count()
        self._next_step = first_step
        self._needs = self._needed_from(first_step)
        try:
            self._fill()
        except LapaError:
            self.close()
            raise

    def batch(self, step: int) -> PairBatch:
        """Return this rank's part of a step's pairs. Rising steps are cheap, any other starts over.

        Raises:
            DataError: clip after clip cannot be decoded.
            SetupError: a decoding process cannot be started.
        """
        if step != self._next_step:
            self._start_over(step)
        draws = [self._draw(sample, step) for sample in self._samples]
        for draw in draws:
            self._wait_for(draw.visit)
        slots = self._pool.slots_NFSSC
        pairs_2BSSC = np.empty((2, len(draws), *slots.shape[2:]), np.uint8)
        for row, draw in enumerate(draws):  # three times as fast as indexing with arrays
            slot, *pair = self._place(draw)
            for frames_BSSC, frame in zip(pairs_2BSSC, pair, strict=True):
                frames_BSSC[row] = slots[slot, frame]
        first_B3 = np.array([self._first(draw) for draw in draws])
        batch = PairBatch(pairs_2BSSC[0], pairs_2BSSC[1], first_B3=first_B3)
        for draw in draws:
            if draw.last:
                self._free.append(self._live.pop(draw.visit).slot)
        self._next_step = step + 1
        self._fill()
        return batch

    def worker_pids(self) -> list[int]:
        """Return the ids of the decoding processes."""
        return self._pool.pids()

    @property
    def worker_deaths(self) -> int:
        """How many decoding processes died and were replaced."""
        return self._pool.deaths

    def close(self) -> None:
        """End the processes and free the memory; a second call does nothing."""
        self._pool.close()

    def __enter__(self) -> PairStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _draw(self, sample: int, step: int) -> _Draw:
        """Return what one sample of the global batch is at one step; pure."""
        num_slots, num_pairs = self.options.slots_per_sample, self.options.pairs_per_visit
        turn, position = divmod(step, num_slots)
        slot = int(_slot_order(self.batch_size, num_slots, self.seed, turn)[sample, position])
        phase = (sample * num_slots + slot) % num_pairs
        generation, place = divmod(turn + phase, num_pairs)
        visit = (generation * num_slots + slot) * self.batch_size + sample
        return _Draw(visit, place, place == num_pairs - 1)

    def _needed_from(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield (step, visit) in the order in which visits are needed; most come several times."""
        while True:
            for sample in self._samples:
                yield step, self._draw(sample, step).visit
            step += 1

    def _place(self, draw: _Draw) -> tuple[int, int, int]:
        """Return slot, first frame and later frame of a draw."""
        live = self._live[draw.visit]
        first, later = live.visit.places_K2[draw.place].tolist()
        return live.slot, first, later

    def _first(self, draw: _Draw) -> tuple[int, int, int]:
        """Return corpus, clip and number of the first frame of a draw."""
        visit = self._live[draw.visit].visit
        return visit.corpus, visit.clip.number, int(visit.frames[visit.places_K2[draw.place, 0]])

    def _fill(self) -> None:
        """Ask for visits in the order of need, as long as slots are free."""
        while self._free:
            step, number = next(self._needs)
            if step >= self._next_step and number not in self._live:
                live = _Live(self._free.popleft(), self._plan.visit(number))
                self._live[number] = live
                self._ask(number, live)

    def _ask(self, number: int, live: _Live) -> None:
        live.ticket = next(self._tickets)
        self._asked[live.ticket] = number
        visit = live.visit
        index = self._plan.corpora[visit.corpus].index
        request = make_request(index.root, visit.clip, visit.frames)
        self._pool.submit(live.ticket, live.slot, request)

    def _wait_for(self, number: int) -> None:
        """Return when a visit is in memory."""
        while number not in self._live or not self._live[number].ready:
            live = self._live.get(number)
            self._pool.wait(None if live is None else live.ticket)
            self._take_finished()
            self._fill()

    def _take_finished(self) -> None:
        for ticket, reason in self._pool.finished().items():
            if ticket in self._abandoned:
                self._free.append(self._abandoned.pop(ticket))
                continue
            number = self._asked.pop(ticket)
            live = self._live[number]
            if reason:
                self._replace(number, live, reason)
            live.ready = not reason

    def _replace(self, number: int, live: _Live, reason: str) -> None:
        """Report a clip that cannot be decoded and ask for another."""
        name = live.visit.clip.id
        if name not in self.failures:
            log.warning("clip %s is left out: %s", name, reason)
        self.failures[name] = reason
        self.failed_visits += 1
        live.attempt += 1
        if live.attempt == _ATTEMPTS:
            raise DataError(
                f"{_ATTEMPTS} clips in a row could not be decoded, the last for: {reason}; run `lapa data index` again"
            )
        live.visit = self._plan.visit(number, live.attempt)
        self._ask(number, live)

    def _start_over(self, step: int) -> None:
        """Forget what is live and go on from another step."""
        cancelled = self._pool.cancel()
        for live in self._live.values():
            if live.ready or live.ticket in cancelled:
                self._free.append(live.slot)
            else:
                self._abandoned[live.ticket] = live.slot
        self._live.clear()
        self._asked.clear()
        self._next_step = step
        self._needs = self._needed_from(step)
        self._fill()


@lru_cache(maxsize=64)
def _slot_order(batch_size: int, num_slots: int, seed: int, turn: int) -> NDArray[np.int64]:
    """Return, for each sample, the order in which its slots are drawn from in one turn, (G, M)."""
    rng = np.random.default_rng([seed, turn, 3])
    slots_GM = np.broadcast_to(np.arange(num_slots), (batch_size, num_slots))
    return rng.permuted(slots_GM, axis=1)
