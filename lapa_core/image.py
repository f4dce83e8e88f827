# SPDX-License-Identifier: Apache-2.0
"""The one image transform of the project: one centre square crop, one antialiased resize.

Training, evaluation and the policy node all call `preprocess`; nothing else crops or resizes. (The
release trains on one crop and deploys on another, facts of its section 2.7.) Imports numpy and Pillow.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lapa_core.errors import DataError

PICTURE_DAMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises on a picture that is damaged, or claims an absurd size."""


def read_rgb(stored: Path | IO[bytes]) -> NDArray[np.uint8]:
    """Return a picture in a file, or of its bytes, as RGB (H, W, 3); raises one of `PICTURE_DAMAGE`."""
    with Image.open(stored) as image:
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def preprocess(image_HWC: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Return the centre square of an RGB image, resized to (size_px, size_px, 3) uint8.

    Pillow's bilinear filter widens with the reduction factor, so it is antialiased in both directions.

    Raises:
        DataError: not a (H, W, 3) uint8 image, or a size below 1.
    """
    if (
        image_HWC.dtype != np.uint8
        or image_HWC.ndim != 3
        or image_HWC.shape[2] != 3
        or image_HWC.size == 0
    ):
        raise DataError(
            f"an image is {image_HWC.dtype} of shape {image_HWC.shape}; allowed is uint8 (H, W, 3) RGB"
        )
    if size_px < 1:
        raise DataError(f"size_px is {size_px}; it must be at least 1")
    height, width = image_HWC.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image_HWC[top : top + side, left : left + side]
    if side == size_px:
        return np.ascontiguousarray(square)
    resized = Image.fromarray(np.ascontiguousarray(square)).resize(
        (size_px, size_px), Image.Resampling.BILINEAR
    )
    return np.asarray(resized).copy()
