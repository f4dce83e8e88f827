# SPDX-License-Identifier: Apache-2.0
"""Picture parts of the report: the same code on different frames, and the worst pairs.

Pictures are enlarged without smoothing, so that what is seen is what the decoder painted.

Shapes: P pairs, B pictures, S image side [px], Q chosen code tuples.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.report.measure import Measured
from lapa_core.laq.report.pairs import ReportPairs
from lapa_core.laq.report.pictures import psnr_db

SHOWN_PX = 128
"""Least side of a picture in the page's data [px]; smaller ones are enlarged by a whole factor."""
CODES_SHOWN = 6
"""Rows of the grid."""
FRAMES_SHOWN = 4
"""Start frames of the grid."""
WORST_SHOWN = 6
"""Worst pairs shown."""
CANDIDATES = 48
"""Most frequent tuples among which the rows are chosen."""


@dataclass(frozen=True, kw_only=True)
class CodeRow:
    """One code tuple on every start frame."""

    name: str
    """The tuple."""
    share: float
    """Share of the pairs that have it."""
    painted: tuple[str, ...]
    """Decoded pictures, as data addresses."""
    changed: tuple[str, ...]
    """What differs from the start frame: brighter in orange, darker in blue."""


@dataclass(frozen=True, kw_only=True)
class WorstPair:
    """One pair that the decoder gets wrong."""

    where: str
    """Episode and frame numbers."""
    psnr: float
    """Of the decoded frame [dB]."""
    first: str
    """First frame, as a data address."""
    later: str
    """True later frame."""
    decoded: str
    """Decoded later frame."""


def data_address(picture_SSC: NDArray[np.uint8]) -> str:
    """Return a picture as a PNG data address, enlarged by a whole factor to at least SHOWN_PX."""
    factor = -(-SHOWN_PX // picture_SSC.shape[0])
    large = np.repeat(np.repeat(picture_SSC, factor, axis=0), factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def change_picture(
    before_SSC: NDArray[np.uint8], after_SSC: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return a grey picture of `before` on which what gets brighter is orange and what gets darker is blue."""
    change_SS = after_SSC.astype(np.float64).mean(axis=2) - before_SSC.mean(axis=2)
    weight_SS1 = np.clip(np.abs(change_SS) / 48.0, 0.0, 1.0)[..., None]
    grey_SS1 = 70.0 + 0.45 * before_SSC.mean(axis=2, keepdims=True)
    colour_SSC = np.where(change_SS[..., None] > 0, (255.0, 140.0, 30.0), (60.0, 120.0, 255.0))
    return np.rint(grey_SS1 * (1 - weight_SS1) + colour_SSC * weight_SS1).astype(np.uint8)


def start_frames(pairs: ReportPairs) -> NDArray[np.uint8]:
    """Return first frames of pairs from different episodes, as far as there are any."""
    _, first_seen = np.unique(pairs.episode_P, return_index=True)
    rows = [*np.sort(first_seen), *range(len(pairs))][:FRAMES_SHOWN]
    return pairs.frames(np.array(rows))[0]


def code_grid(
    model: LatentActionModel, measured: Measured, start_BSSC: NDArray[np.uint8]
) -> list[CodeRow]:
    """Paint frequent code tuples, as different from each other as there are, on every start frame."""
    rows = []
    tuples, counts = np.unique(measured.codes_PK, axis=0, return_counts=True)
    for index in _far_apart(measured, tuples, counts):
        codes_BK = np.repeat(tuples[index][None], len(start_BSSC), axis=0)
        painted_BSSC = model.decode(start_BSSC, codes_BK)
        rows.append(
            CodeRow(
                name=tuple_name(tuples[index].tolist()),
                share=float(counts[index] / counts.sum()),
                painted=tuple(data_address(picture) for picture in painted_BSSC),
                changed=tuple(
                    data_address(change_picture(before, after))
                    for before, after in zip(start_BSSC, painted_BSSC, strict=True)
                ),
            )
        )
    return rows


def tuple_name(codes: list[int]) -> str:
    """Return a code tuple as people type it: `3,3,5,0`."""
    return ",".join(str(code) for code in codes)


def _far_apart(
    measured: Measured, tuples_QK: NDArray[np.int64], counts_Q: NDArray[np.int64]
) -> list[int]:
    """Choose tuples by farthest mean vector, beginning with the most frequent."""
    candidates = np.argsort(-counts_Q, kind="stable")[:CANDIDATES]
    mean_CF = np.stack(
        [
            measured.vectors_PF[(measured.codes_PK == tuples_QK[index]).all(axis=1)].mean(axis=0)
            for index in candidates
        ]
    )
    chosen = [0]
    while len(chosen) < min(CODES_SHOWN, len(candidates)):
        apart_CQ = np.linalg.norm(mean_CF[:, None] - mean_CF[chosen][None], axis=2)
        nearest_C = apart_CQ.min(axis=1)
        nearest_C[chosen] = -1.0
        chosen.append(int(nearest_C.argmax()))
    return [int(candidates[position]) for position in chosen]


def worst_pairs(
    model: LatentActionModel, measured: Measured, pairs: ReportPairs
) -> list[WorstPair]:
    """Show the pairs with the largest reconstruction error, at most one per episode."""
    if measured.errors is None:
        return []
    decoded_P = measured.errors.decoded_P
    order = np.argsort(-decoded_P, kind="stable")
    _, first_seen = np.unique(pairs.episode_P[order], return_index=True)
    rows = order[np.sort(first_seen)[:WORST_SHOWN]]
    first, later = pairs.frames(rows)
    decoded = model.decode(first, measured.codes_PK[rows])
    return [
        WorstPair(
            where=f"{pairs.names[int(pairs.episode_P[row])]}, frames {number[0]} to {number[1]}",
            psnr=psnr_db(decoded_P[row]),
            first=data_address(first[i]),
            later=data_address(later[i]),
            decoded=data_address(decoded[i]),
        )
        for i, (row, number) in enumerate(zip(rows, pairs.number_P2[rows].tolist(), strict=True))
    ]
