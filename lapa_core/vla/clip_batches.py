# SPDX-License-Identifier: Apache-2.0
"""Batches of labelled frames from the clips of an index, decoded as they are needed.

Nothing is cached on disk, and the memory does not grow with the corpus: `lapa_core.data.pair_stream` says which clips
are in it. A frame that has codes is the first of a pair, so frames are drawn as the latent action model's pairs are.

Shapes: B frames of this process's part of a batch, P labelled frames, M earlier codes, K latent tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from lapa_core.data.clip_index import ClipIndex
from lapa_core.data.pair_batch import PairBatch
from lapa_core.data.pair_stream import PairStream, open_pairs
from lapa_core.errors import ContractError
from lapa_core.laq.labels import LatentLabels
from lapa_core.train.augment import to_float
from lapa_core.train.sampling import Part
from lapa_core.vla.batches import REPORT_FRAMES, Batch, at_once
from lapa_core.vla.config import PretrainConfig
from lapa_core.vla.extra import extra_tensors
from lapa_core.vla.history import HISTORY, earlier_codes


class ClipBatches:
    """`lapa_core.vla.batches.Batches` of an index."""

    def __init__(
        self,
        config: PretrainConfig,
        index: ClipIndex,
        labels: LatentLabels,
        *,
        image_px: int,
        part: Part,
        device: torch.device,
    ):
        """Join an index with its labels; nothing is decoded before the first batch.

        Args:
            config: of the stage; its `data` is the index.
            index: opened.
            labels: of the same clips.
            image_px: side of the frames [px].
            part: which part of each batch is this process's.
            device: where it trains.

        Raises:
            ContractError: lengths are to be sorted, which takes all instructions of a window beforehand.
        """
        if config.length_window > 1:
            raise ContractError(
                f"length_window is {config.length_window}, but {config.data} is read clip by clip; set it to 1"
            )
        self._config, self._image_px = config, image_px
        self._part, self._device = part, device
        self._instructions = [clip.instruction for clip in index.clips]
        lengths = [len(clip) for clip in index.clips]
        self._start_E = np.cumsum([0, *lengths], dtype=np.int64)
        self._labels = labels
        self._earlier_PMK: NDArray[np.int64] | None = None
        if config.history:
            count = int(self._start_E[-1])
            earlier = earlier_codes(labels.pairs_P2, labels.codes_PK, count, config.history)
            self._earlier_PMK = earlier[labels.pairs_P2[:, 0]]
        self._stream: PairStream | None = None

    def batch(self, step: int) -> Batch:
        """As `Batches`."""
        if self._stream is None:
            self._stream = self._open(self._config.batch_size, self._part, step)
        return self._labelled(self._stream.batch(step))

    def report(self) -> Iterator[Batch]:
        """As `Batches`: a pass of its own, in the order of one process."""
        self.close()
        size = at_once(self._config, self._part)
        steps = -(-min(REPORT_FRAMES, len(self._labels.pairs_P2)) // size)
        with self._open(size, Part(), 0) as stream:
            for step in range(steps):
                yield self._labelled(stream.batch(step))

    def close(self) -> None:
        """End the decoding processes; the next batch starts others."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self, batch_size: int, part: Part, first_step: int) -> PairStream:
        config = self._config
        return open_pairs(
            config.data,
            image_px=self._image_px,
            batch_size=batch_size,
            gap_s=self._labels.gap_s,
            seed=config.seed,
            rank=part.rank,
            world=part.world,
            first_step=first_step,
            workers=config.workers,
            max_clips=config.max_episodes,
        )

    def _labelled(self, pairs: PairBatch) -> Batch:
        assert pairs.first_B3 is not None
        _, clip_B, frame_B = pairs.first_B3.T
        rows_B = self._start_E[clip_B] + frame_B
        at_B = np.searchsorted(self._labels.pairs_P2[:, 0], rows_B)
        assert np.array_equal(self._labels.pairs_P2[at_B, 0], rows_B), "every pair has its codes"
        told = {} if self._earlier_PMK is None else {HISTORY: self._earlier_PMK[at_B]}
        codes_BK = torch.from_numpy(self._labels.codes_PK[at_B])
        return Batch(
            to_float(torch.from_numpy(pairs.x0_BSSC).to(self._device)),
            [self._instructions[clip] for clip in clip_B],
            extra_tensors(told, self._device),
            {"codes": codes_BK.to(self._device)},
        )
