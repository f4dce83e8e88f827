# SPDX-License-Identifier: Apache-2.0
"""Latent labels in memory: one row of codes per frame pair, tied to the model and to the frames. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapa_core.errors import DataError
from lapa_core.laq.label_files import LabelFacts, read_facts, read_shard
from lapa_core.laq.label_plan import Shard
from lapa_core.laq.label_source import DataIdentity

_PAIR = ["episode", "frame", "later", "codes"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentLabels:
    """Codes of every valid frame pair of a data set, in the order of its frames."""

    pairs_P2: NDArray[np.int64]
    """Indices of the two frames of each pair, in all clips laid end to end (for a `FrameStore`: its frames)."""
    codes_PK: NDArray[np.int64]
    """Codes of each pair."""
    vectors_PKD: NDArray[np.float32] | None
    """The latent tokens of each pair before quantisation, when they were asked for."""
    centres_ND: NDArray[np.float32]
    """The vector of every code: codes with close vectors mean nearly the same."""
    gap_s: float
    """Time between the frames of a pair [s]."""
    checkpoint_hash: str
    """SHA-256 of the weights of the latent action model."""
    data: DataIdentity
    """The frames that were labelled."""

    @property
    def codes(self) -> int:
        """N, codes per token."""
        return len(self.centres_ND)

    @classmethod
    def load(cls, folder: str | Path, *, vectors: bool = False) -> LatentLabels:
        """Read the labels that `lapa laq label` left in a folder; `vectors` reads the pre-quantised ones too.

        Raises:
            DataError: missing, damaged or not finished.
        """
        folder = Path(folder)
        facts, shards = read_facts(folder)
        if shards is None:
            raise DataError(
                f"the labels in {folder} are not finished; run the same `lapa laq label` again: it goes on from there"
            )
        columns = [*_PAIR, "vector"] if vectors else _PAIR
        tables = [
            read_shard(folder / Shard(number, ()).name, sha256, columns)
            for number, sha256 in enumerate(shards)
        ]
        return cls(
            pairs_P2=_pairs(tables, facts),
            codes_PK=_stack(tables, "codes", facts.tokens).astype(np.int64),
            vectors_PKD=(
                _stack(tables, "vector", facts.tokens * facts.dim).reshape(
                    -1, facts.tokens, facts.dim
                )
                if vectors
                else None
            ),
            centres_ND=np.asarray(facts.centres, np.float32),
            gap_s=facts.gap_s,
            checkpoint_hash=facts.checkpoint_hash,
            data=facts.data,
        )


def _pairs(tables: list[pa.Table], facts: LabelFacts) -> NDArray[np.int64]:
    start = np.cumsum([0, *facts.frames_per_clip], dtype=np.int64)
    parts = [
        start[table["episode"].to_numpy()][:, None]
        + np.stack([table["frame"].to_numpy(), table["later"].to_numpy()], axis=1)
        for table in tables
    ]
    return np.concatenate(parts)


def _stack(tables: list[pa.Table], name: str, width: int) -> NDArray:
    return np.concatenate(
        [
            table[name].combine_chunks().flatten().to_numpy().reshape(len(table), width)
            for table in tables
        ]
    )
