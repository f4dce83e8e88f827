# SPDX-License-Identifier: Apache-2.0
"""Augmentations on image batches (B, 3, S, S) in [0, 1]; randomness comes from torch's seeded global generator."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.data.pair_batch import PairBatch
from lapa_core.train.sampling import Part

ALONE = Part()
"""The one process that has the whole batch."""


def to_float(frames_BHWC: Tensor) -> Tensor:
    """Return uint8 frames (B, H, W, 3) as float32 (B, 3, H, W) in [0, 1], channels-last in memory."""
    return (
        frames_BHWC.permute(0, 3, 1, 2)
        .to(torch.float32, memory_format=torch.channels_last)
        .div_(255.0)
    )


def load_images(
    frames_NHWC: NDArray[np.uint8], rows_B: NDArray[np.int64], device: str | torch.device
) -> Tensor:
    """Read some frames (they may lie in a memory map) and return them as `to_float` does, on a device."""
    return to_float(torch.from_numpy(frames_NHWC[rows_B]).to(device))


def images_of(batch: PairBatch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return both frames of a batch of pairs as `to_float` does, on a device; a GPU does not wait for the copy."""
    first, later = (
        torch.from_numpy(np.ascontiguousarray(f)) for f in (batch.x0_BSSC, batch.x1_BSSC)
    )
    if device.type == "cuda":
        first, later = first.pin_memory(), later.pin_memory()
    return (
        to_float(first.to(device, non_blocking=True)),
        to_float(later.to(device, non_blocking=True)),
    )


def random_shift(images_BCHW: Tensor, max_shift_px: int, part: Part = ALONE) -> Tensor:
    """Shift each image by up to +-max_shift_px in both axes, repeating the border.

    A shift keeps the label: end-effector deltas are relative, so the whole scene may move by a few pixels.
    The random numbers are drawn for the joint batch of which these images are a part, here and in `random_light`.
    """
    if max_shift_px == 0:
        return images_BCHW
    batch, _, height, width = images_BCHW.shape
    padded = F.pad(images_BCHW, (max_shift_px,) * 4, mode="replicate")
    offset_B2 = part.draw(
        lambda joint: torch.randint(0, 2 * max_shift_px + 1, (joint, 2)), batch
    ).tolist()
    views = [
        image[:, y : y + height, x : x + width]
        for image, (y, x) in zip(padded, offset_B2, strict=True)
    ]
    return torch.stack(views).contiguous(memory_format=torch.channels_last)


def random_light(images_BCHW: Tensor, strength: float, part: Part = ALONE) -> Tensor:
    """Scale the contrast and move the brightness of each image by up to +-strength; colours keep their hue."""
    if strength == 0.0:
        return images_BCHW

    def draw(joint: int) -> Tensor:
        return torch.rand((joint, 1, 1, 1), device=images_BCHW.device)

    gain, bias = (strength * (2.0 * part.draw(draw, len(images_BCHW)) - 1.0) for _ in range(2))
    return images_BCHW * (1.0 + gain) + 0.5 * bias
