# SPDX-License-Identifier: Apache-2.0
"""What the decoder's pictures say: is it better than the present frame, does it need the codes? Imports numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapa_core.laq.report.measure import PictureErrors


@dataclass(frozen=True, kw_only=True)
class PictureFigures:
    """Peak signal-to-noise ratios of the mean squared error over all pairs [dB]; higher is better."""

    decoded_psnr_db: float
    """Decoded frame against the true later frame."""
    persistence_psnr_db: float
    """First frame taken as the later one."""
    shuffled_psnr_db: float
    """Frame decoded from another pair's codes."""
    closer_share: float
    """Share of pairs with motion whose decoded frame is closer to the later frame than to the first."""

    @property
    def gain_db(self) -> float:
        """How much better the decoder is than saying that nothing moves [dB]."""
        return self.decoded_psnr_db - self.persistence_psnr_db

    @property
    def delta_db(self) -> float:
        """How much the right codes help over another pair's (Genie's delta-PSNR) [dB]."""
        return self.decoded_psnr_db - self.shuffled_psnr_db


def psnr_db(squared_error: NDArray[np.float64] | float) -> float:
    """Return the peak signal-to-noise ratio [dB] of mean squared errors of pixels in [0, 1]; 99 for no error."""
    return float(min(99.0, -10.0 * np.log10(max(float(np.mean(squared_error)), 1e-12))))


def picture_figures(errors: PictureErrors) -> PictureFigures:
    """Summarise the reconstruction errors."""
    moving = errors.persistence_P > 0
    closer_P = errors.decoded_P < errors.decoded_to_first_P
    return PictureFigures(
        decoded_psnr_db=psnr_db(errors.decoded_P),
        persistence_psnr_db=psnr_db(errors.persistence_P),
        shuffled_psnr_db=psnr_db(errors.shuffled_P),
        closer_share=float(closer_P[moving].mean()) if moving.any() else 0.0,
    )
