# SPDX-License-Identifier: Apache-2.0
"""A frozen picture is told from a scene in which nothing moves."""

import contextlib

import numpy as np
import pytest
from lapa_ros.safety_frames import FrozenFrames

from lapa_core.errors import DataError

PICTURE = np.full((8, 8, 3), 90, np.uint8)


def test_a_picture_that_stays_while_the_arm_moves_is_refused_until_it_changes():
    frames = FrozenFrames()
    frames.arm([0.0, 0.0])
    frames.check(PICTURE)
    frames.arm([0.0, 0.1])
    for _ in range(2):
        with pytest.raises(DataError, match="frozen"):
            frames.check(PICTURE.copy())
    frames.check(PICTURE + 1)
    frames.check(PICTURE + 1)


def test_a_frozen_picture_stays_refused_when_the_arm_comes_back_to_where_it_was_taken():
    """Regression pinned: it passed again, and would have until the arm had left once more."""
    frames = FrozenFrames()
    for joints_rad in ([0.0], [0.1]):
        frames.arm(joints_rad)
        with contextlib.suppress(DataError):
            frames.check(PICTURE)
    frames.arm([0.0])
    with pytest.raises(DataError, match=r"0\.10 rad"):
        frames.check(PICTURE)
    frames.check(PICTURE + 1)


def test_a_still_scene_and_an_unknown_arm_are_no_fault():
    frames = FrozenFrames()
    for joints_rad in ([], [0.0], [0.04], [], [0.5], [0.5]):
        frames.arm(joints_rad)
        frames.check(PICTURE)
