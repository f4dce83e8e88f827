# SPDX-License-Identifier: Apache-2.0
"""What is learnt from an arm at rest, and what is not taken for its weight."""

import numpy as np
import pytest
from lapa_ros.arm_sag import SagEstimate

TARGET_RAD = np.array([0.1, 0.2, 0.3, 0.0, 1.2, 0.0])
SAG_RAD = np.array([0.0, -0.05, 0.02, 0.0, 0.01, 0.0])


def watch(sag, seconds, target=lambda _: TARGET_RAD, off=lambda _: SAG_RAD, begin_s=0.0):
    for time_s in begin_s + np.arange(0.0, seconds, 0.02):
        sag.look(target(time_s), target(time_s) - off(time_s), time_s)
    return sag.offset_rad


def test_nothing_is_known_before_a_rest():
    assert not watch(SagEstimate(), 0.4).any()


def test_a_rest_tells_what_the_motors_carry():
    np.testing.assert_allclose(watch(SagEstimate(), 0.6), SAG_RAD)


@pytest.mark.parametrize(
    "moving",
    [
        {"target": lambda time_s: TARGET_RAD + 0.1 * time_s},
        {"off": lambda time_s: SAG_RAD - 0.1 * time_s},
    ],
    ids=["the target moves", "the arm moves"],
)
def test_a_motion_is_no_rest_and_what_is_known_stays(moving):
    sag = SagEstimate()
    watch(sag, 0.6)
    np.testing.assert_allclose(watch(sag, 2.0, **moving, begin_s=10.0), SAG_RAD)


def test_more_than_the_weight_is_something_else():
    assert not watch(SagEstimate(), 2.0, off=lambda _: 3.0 * SAG_RAD).any()


def test_a_clock_that_is_set_back_begins_anew():
    sag = SagEstimate()
    watch(sag, 0.4, begin_s=100.0)
    assert not watch(sag, 0.4).any()
    np.testing.assert_allclose(watch(sag, 0.4, begin_s=0.4), SAG_RAD)


def test_what_is_forgotten_is_learnt_anew():
    sag = SagEstimate()
    watch(sag, 0.6)
    sag.forget()
    assert not watch(sag, 0.4, begin_s=1.0).any()
