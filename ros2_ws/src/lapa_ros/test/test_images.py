# SPDX-License-Identifier: Apache-2.0
"""Pictures survive the way through messages."""

import array

import numpy as np
import pytest
from lapa_ros.images import to_compressed, to_image, to_rgb
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lapa_core.errors import DataError


@pytest.fixture
def picture():
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([4 * x, 5 * y, 255 - 4 * x], axis=-1).astype(np.uint8)


def test_raw_round_trip_is_exact(picture):
    message = to_image(picture, Header(frame_id="camera"))
    assert (message.height, message.width, message.step, message.encoding) == (48, 64, 192, "rgb8")
    np.testing.assert_array_equal(to_rgb(message), picture)


def test_jpeg_round_trip_is_close_and_keeps_the_colour_order(picture):
    message = to_compressed(picture, Header(), quality=95)
    assert "jpeg" in message.format
    assert np.abs(to_rgb(message).astype(int) - picture).max() <= 12


def test_bgr_mono_and_padded_rows_are_understood(picture):
    bgr = to_image(picture[..., ::-1], Header())
    bgr.encoding = "bgr8"
    np.testing.assert_array_equal(to_rgb(bgr), picture)
    mono = Image(height=2, width=3, encoding="mono8", step=3, data=array.array("B", range(6)))
    np.testing.assert_array_equal(to_rgb(mono)[..., 1], [[0, 1, 2], [3, 4, 5]])
    padded = np.zeros((48, 200), np.uint8)
    padded[:, :192] = picture.reshape(48, 192)
    message = Image(
        height=48, width=64, encoding="rgb8", step=200, data=array.array("B", padded.tobytes())
    )
    np.testing.assert_array_equal(to_rgb(message), picture)


@pytest.mark.parametrize(
    "message",
    [
        Image(height=4, width=4, encoding="rgb8", step=12, data=array.array("B", bytes(5))),
        Image(height=2, width=2, encoding="invented", step=2, data=array.array("B", bytes(4))),
        CompressedImage(format="jpeg", data=array.array("B", b"not a jpeg")),
    ],
)
def test_unusable_messages_are_data_errors(message):
    with pytest.raises(DataError):
        to_rgb(message)
