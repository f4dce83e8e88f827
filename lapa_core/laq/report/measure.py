# SPDX-License-Identifier: Apache-2.0
"""One pass of the model over the pairs: codes, vectors, reconstruction errors and controls, as plain arrays.

Shapes: P pairs, B pairs of one batch, K latent tokens, F = K * D numbers of a latent, T triplets, S image side [px].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.probe import small
from lapa_core.laq.report.pairs import ReportPairs

BATCH = 128
"""Pairs per batch; partners for the shuffled controls are drawn from the same batch, which is in random order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureErrors:
    """Mean squared errors of each pair, pixels in [0, 1]."""

    decoded_P: NDArray[np.float64]
    """Decoded frame against the true later frame."""
    decoded_to_first_P: NDArray[np.float64]
    """Decoded frame against the first frame."""
    persistence_P: NDArray[np.float64]
    """First frame against the true later frame: the error of predicting that nothing moves."""
    shuffled_P: NDArray[np.float64]
    """Frame decoded from another pair's codes against the true later frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Everything that the figures and the verdict are computed from."""

    codes_PK: NDArray[np.int64]
    """Codes of each pair."""
    vectors_PF: NDArray[np.float64]
    """Continuous vectors before quantisation, flat."""
    first_small_PF: NDArray[np.float64]
    """First frames at 16 x 16 px, flat."""
    difference_small_PF: NDArray[np.float64]
    """Later minus first frames at 16 x 16 px, flat."""
    still_codes_PK: NDArray[np.int64]
    """Codes of (first frame, the same frame)."""
    stranger_codes_PK: NDArray[np.int64]
    """Codes of (first frame, another pair's later frame)."""
    cosine_T: NDArray[np.float64]
    """Cosine of the latents past -> present and future -> present."""
    errors: PictureErrors | None
    """None when the model reconstructs features, not pixels."""


def measure(model: LatentActionModel, pairs: ReportPairs, *, progress: bool = False) -> Measured:
    """Run the model over all pairs and triplets, batch by batch."""
    # Of even size: in a last batch of one pair that pair would be its own stranger.
    batches = np.array_split(np.arange(len(pairs)), -(-len(pairs) // BATCH))
    parts = [
        _measure_batch(model, *pairs.frames(rows))
        for rows in tqdm(batches, desc="pairs", disable=not progress)
    ]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    errors = None
    if model.paints:
        names = PictureErrors.__dataclass_fields__
        errors = PictureErrors(**{name: joined.pop(name) for name in names})
    return Measured(**joined, cosine_T=_past_future_cosine(model, pairs), errors=errors)


def _measure_batch(
    model: LatentActionModel, first_BSSC: NDArray[np.uint8], later_BSSC: NDArray[np.uint8]
) -> dict[str, NDArray]:
    """Measure one batch; the partner of each pair is the one half a batch further on."""
    size = len(first_BSSC)
    latent = model.encode(first_BSSC, later_BSSC)
    first_small = small(first_BSSC)
    found = {
        "codes_PK": latent.codes_BK,
        "vectors_PF": latent.vectors_BKD.reshape(size, -1).astype(np.float64),
        "first_small_PF": first_small,
        "difference_small_PF": small(later_BSSC) - first_small,
        "still_codes_PK": model.encode(first_BSSC, first_BSSC).codes_BK,
        "stranger_codes_PK": model.encode(
            first_BSSC, np.roll(later_BSSC, size // 2, axis=0)
        ).codes_BK,
    }
    if model.paints:
        decoded_BSSC = model.decode(first_BSSC, latent.codes_BK)
        shuffled_BSSC = model.decode(first_BSSC, np.roll(latent.codes_BK, size // 2, axis=0))
        found["decoded_P"] = squared_error(decoded_BSSC, later_BSSC)
        found["decoded_to_first_P"] = squared_error(decoded_BSSC, first_BSSC)
        found["persistence_P"] = squared_error(first_BSSC, later_BSSC)
        found["shuffled_P"] = squared_error(shuffled_BSSC, later_BSSC)
    return found


def squared_error(
    one_BSSC: NDArray[np.uint8], other_BSSC: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Return the mean squared difference of each pair of images (B,), pixels in [0, 1]."""
    difference = one_BSSC.astype(np.float64) - other_BSSC
    return np.square(difference / 255.0).mean(axis=(1, 2, 3))


def _past_future_cosine(model: LatentActionModel, pairs: ReportPairs) -> NDArray[np.float64]:
    cosines = [np.zeros(0)]
    for start in range(0, len(pairs.triplets_T3), BATCH):
        past, present, future = (
            pairs.frames_NSSC[rows_B] for rows_B in pairs.triplets_T3[start : start + BATCH].T
        )
        one_BF = model.encode(past, present).vectors_BKD.reshape(len(past), -1).astype(np.float64)
        other_BF = model.encode(future, present).vectors_BKD.reshape(len(past), -1)
        length_B = np.linalg.norm(one_BF, axis=1) * np.linalg.norm(other_BF, axis=1)
        cosines.append((one_BF * other_BF).sum(axis=1) / np.maximum(length_B, 1e-12))
    return np.concatenate(cosines)
