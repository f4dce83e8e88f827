# SPDX-License-Identifier: Apache-2.0
"""Pictures in decoded `sensor_msgs/Image` and `CompressedImage` messages as RGB, without ROS."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import DataError
from lapa_core.image import PICTURE_DAMAGE, read_rgb

_RGB, _BGR = slice(0, 3), slice(2, None, -1)
_CHANNELS_TO_RGB = {"rgb8": _RGB, "bgr8": _BGR, "rgba8": _RGB, "bgra8": _BGR}


def why_no_colours(message: Any) -> str:
    """Return why a message holds no picture in colours that are read, such as depth; empty where it may."""
    if hasattr(message, "format"):
        depth = "compressedDepth" in message.format
        return f"format {message.format!r} is not read; record jpeg or png" if depth else ""
    encoding = getattr(message, "encoding", "")  # a definition of that name may be anybody's
    if encoding in _CHANNELS_TO_RGB:
        return ""
    return f"encoding {encoding!r} is not read; allowed are {sorted(_CHANNELS_TO_RGB)}"


def decode_picture(message: Any, label: str) -> NDArray[np.uint8]:
    """Return (H, W, 3) RGB uint8.

    Args:
        message: decoded message; one with a `format` is compressed, one with an `encoding` raw.
        label: what to name in errors.

    Raises:
        DataError: an encoding other than 8-bit RGB or BGR (with or without alpha), or damaged bytes.
    """
    if reason := why_no_colours(message):
        raise DataError(f"{label}: {reason}")
    if hasattr(message, "format"):
        try:
            return read_rgb(io.BytesIO(bytes(message.data)))
        except PICTURE_DAMAGE as error:
            raise DataError(
                f"{label}: a picture of format {message.format!r} cannot be decoded ({error}); "
                "record jpeg or png"
            ) from error
    channels = len(message.encoding) - 1
    data = np.frombuffer(bytes(message.data), dtype=np.uint8)
    width, height, step = message.width, message.height, message.step
    if not width or not height or step < width * channels or data.size != step * height:
        raise DataError(
            f"{label}: {data.size} bytes do not make {height} rows of {step} bytes with {width} "
            f"{message.encoding} pixels; the driver's message is wrong"
        )
    rows = data.reshape(height, step)[:, : width * channels]
    return np.ascontiguousarray(
        rows.reshape(height, width, channels)[..., _CHANNELS_TO_RGB[message.encoding]]
    )
