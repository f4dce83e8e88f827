# SPDX-License-Identifier: Apache-2.0
"""Latent labels on disk: one row of codes per frame pair, tied to the model that made them. Imports numpy only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentLabels:
    """Codes of every valid frame pair of a data set, in the order of `FrameStore.valid_pairs`."""

    pairs_P2: NDArray[np.int64]
    """Indices of the two frames of each pair."""
    codes_PK: NDArray[np.int64]
    """Codes of each pair."""
    centres_ND: NDArray[np.float32]
    """The vector of every code: codes with close vectors mean nearly the same."""
    gap_s: float
    """Time between the frames of a pair [s]."""
    checkpoint_hash: str
    """SHA-256 of the weights of the latent action model."""

    @property
    def codes(self) -> int:
        """N, codes per token."""
        return len(self.centres_ND)

    def save(self, path: Path) -> None:
        """Write the labels; an older file of the same name is replaced only by a whole one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"gap_s": self.gap_s, "checkpoint_hash": self.checkpoint_hash}
        fresh = path.with_name(f".{path.name}")
        with fresh.open("wb") as file:
            np.savez_compressed(
                file,
                pairs_P2=self.pairs_P2,
                codes_PK=self.codes_PK,
                centres_ND=self.centres_ND,
                facts=json.dumps(facts),
            )
        fresh.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> LatentLabels:
        """Read labels.

        Raises:
            DataError: missing, or no label file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                facts = json.loads(str(file["facts"]))
                arrays = {name: file[name] for name in ("pairs_P2", "codes_PK", "centres_ND")}
                return cls(**arrays, **facts)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{path} cannot be read as latent labels ({error}); make them with `lapa laq label`"
            ) from error
