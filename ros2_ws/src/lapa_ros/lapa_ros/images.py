# SPDX-License-Identifier: Apache-2.0
"""ROS image messages to RGB arrays and back: one function each way.

Decoding goes through cv_bridge where a ROS installation brings it, and through rosbags-image otherwise (PyPI
has no cv_bridge). Message buffers are `array.array`: assigning a numpy array to `Image.data` makes rclpy check
every element, tens of milliseconds a frame.
"""

from __future__ import annotations

import array
import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lapa_core.errors import DataError

Rgb = NDArray[np.uint8]


def to_rgb(message: Image | CompressedImage) -> Rgb:
    """Return the (H, W, 3) RGB uint8 picture of a raw or compressed image message.

    Raises:
        DataError: the encoding is not convertible, or the data do not fit the message's own sizes.
    """
    try:
        picture = _decoder()(message)
    except Exception as error:
        # Broad on purpose: cv_bridge, rosbags-image and the decoders below them raise types of their own, on bytes
        # that came over the network. They mean one thing: no usable picture.
        kind = getattr(message, "encoding", None) or getattr(message, "format", "?")
        raise DataError(
            f"an image of encoding {kind!r} cannot be converted to RGB: {error}"
        ) from error
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise DataError(
            f"an image became {picture.dtype} {picture.shape}; uint8 (H, W, 3) is needed"
        )
    return np.ascontiguousarray(picture)


def to_image(picture_HWC: Rgb, header: Header) -> Image:
    """Return a raw `rgb8` message of an RGB picture."""
    height, width = picture_HWC.shape[:2]
    message = Image(
        header=header, height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width
    )
    message.data = array.array("B", np.ascontiguousarray(picture_HWC).tobytes())
    return message


def to_compressed(picture_HWC: Rgb, header: Header, quality: int = 95) -> CompressedImage:
    """Return a JPEG message of an RGB picture; colour is not subsampled, which small pictures would show."""
    buffer = io.BytesIO()
    PillowImage.fromarray(picture_HWC).save(buffer, "JPEG", quality=quality, subsampling=0)
    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    message.data = array.array("B", buffer.getvalue())
    return message


@lru_cache(maxsize=1)
def _decoder() -> Callable[[Any], Rgb]:
    try:
        from cv_bridge import CvBridge
    except ImportError:
        from rosbags.image import message_to_cvimage

        return lambda message: np.asarray(
            message_to_cvimage(_without_padding(message), "rgb8"), np.uint8
        )
    bridge = CvBridge()

    def decode(message: Any) -> Rgb:
        if isinstance(message, CompressedImage):
            return bridge.compressed_imgmsg_to_cv2(message, "rgb8")
        return bridge.imgmsg_to_cv2(message, "rgb8")

    return decode


def _without_padding(message: Image | CompressedImage) -> Image | CompressedImage:
    """Drop row padding, which rosbags-image does not know: it reads rows as if `step` were their length."""
    if isinstance(message, CompressedImage) or message.height == 0:
        return message
    data = np.frombuffer(message.data, np.uint8)
    if data.size != message.step * message.height:
        raise DataError(
            f"{data.size} bytes of data for {message.height} rows of {message.step} bytes"
        )
    row_bytes = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}.get(
        message.encoding, 0
    ) * message.width
    if row_bytes in (0, message.step):
        return message
    rows = data.reshape(message.height, message.step)[:, :row_bytes]
    tight = Image(header=message.header, height=message.height, width=message.width, encoding=message.encoding,
                  is_bigendian=message.is_bigendian, step=row_bytes)  # fmt: skip
    tight.data = array.array("B", np.ascontiguousarray(rows).tobytes())
    return tight
