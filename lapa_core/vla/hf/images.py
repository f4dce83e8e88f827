# SPDX-License-Identifier: Apache-2.0
"""What a processor does to an image, on float tensors: normalising, and cutting into Qwen's patches. No PIL.

Frames come at the size that the tower takes (`HfConfig.image_px`), so nothing is resized here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from lapa_core.errors import CheckpointError


class Normalisation(NamedTuple):
    """Statistics of the processor's configuration."""

    mean: tuple[float, float, float]
    """Per colour channel, of images in [0, 1]."""
    std: tuple[float, float, float]
    """Per colour channel."""

    @classmethod
    def of(cls, processor: dict[str, Any]) -> Normalisation:
        """Read a processor's configuration.

        Raises:
            CheckpointError: there are no statistics of three channels in it.
        """
        if processor.get("do_normalize") is False:
            return cls((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        try:
            mean, std = (tuple(map(float, processor[f"image_{name}"])) for name in ("mean", "std"))
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"the image processor's configuration lacks {error}; it needs image_mean and image_std"
            ) from error
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0.0:
            raise CheckpointError(
                f"image_mean is {mean} and image_std {std}; three numbers each are needed, std above 0"
            )
        return cls(mean, std)

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """Return the standardised image; given in [0, 1]."""
        mean, std = (image_BCHW.new_tensor(part)[:, None, None] for part in self)
        return (image_BCHW - mean) / std


def to_patches(image_NCHW: Tensor, patch: int, merge: int, frames: int) -> Tensor:
    """Return (N * patches, channels * frames * patch * patch) in the order that Qwen's vision tower reads.

    The patches of one merged token follow each other; a still image is repeated to `frames` frames.
    """
    images, channels, side, _ = image_NCHW.shape
    cells = side // (patch * merge)
    cut = image_NCHW.reshape(images, channels, cells, merge, patch, cells, merge, patch)
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
    return cut.expand(*[-1] * 6, frames, -1, -1).reshape(images * (side // patch) ** 2, -1)


def square_side(size: int | list[int] | tuple[int, int]) -> int:
    """Return the one side of a configuration's size, which may be written as a pair."""
    sides = [size] if isinstance(size, int) else list(size)
    if len(set(sides)) != 1:
        raise CheckpointError(f"the vision tower takes images of {sides}; only square ones will do")
    return int(sides[0])
