# SPDX-License-Identifier: Apache-2.0
"""The one image transform: centre square, antialiased, never silent about a wrong image."""

import numpy as np
import pytest

from lapa_core.errors import DataError
from lapa_core.image import preprocess


def test_crop_takes_the_centre_square():
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    assert (preprocess(image, 20) == 200).all()


def test_resize_is_antialiased():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    small = preprocess(stripes, 32)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 2, (
        "aliasing would leave black or white columns"
    )


def test_an_image_of_the_right_size_is_unchanged():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert (preprocess(image, 64) == image).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3)),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_anything_but_rgb_uint8_is_refused(image):
    with pytest.raises(DataError, match="allowed is uint8"):
        preprocess(image, 4)
