# SPDX-License-Identifier: Apache-2.0
"""What is learnt from an arm at rest, what is not taken for its weight, and what is made of it."""

import numpy as np
import pytest
from lapa_ros.arm_sag import SagEstimate

from lapa_core.robot.contract import load_contract

TARGET_RAD = np.array([0.1, 0.2, 0.3, 0.0, 1.2, 0.0])
SAG_RAD = np.array([0.0, -0.05, 0.02, 0.0, 0.01, 0.0])


@pytest.fixture
def sag():
    return SagEstimate(load_contract("wx250s").arm)


def watch(sag, seconds, target=lambda _: TARGET_RAD, off=lambda _: SAG_RAD, begin_s=0.0):
    """Let it look at 50 Hz, and return what it would add to hold a joint whose last target is far away [rad]."""
    for time_s in begin_s + np.arange(0.0, seconds, 0.02):
        sag.look(target(time_s), target(time_s) - off(time_s), time_s)
    return known(sag)


def known(sag):
    towards_rad = np.sign(SAG_RAD) * 10.0
    return sag.held(np.zeros(6), towards_rad)


def test_nothing_is_known_before_a_rest(sag):
    assert not watch(sag, 0.4).any()


def test_a_rest_tells_what_the_motors_carry(sag):
    np.testing.assert_allclose(watch(sag, 0.6), SAG_RAD)


def test_a_joint_that_carries_nothing_does_not_sag(sag):
    watch(sag, 0.6, off=lambda _: np.full(6, 0.05))
    held_rad = sag.held(np.zeros(6), np.full(6, 10.0))
    np.testing.assert_allclose(held_rad, [0.0, 0.05, 0.05, 0.0, 0.05, 0.0])


@pytest.mark.parametrize(
    "moving",
    [
        {"target": lambda time_s: TARGET_RAD + 0.1 * time_s},
        {"off": lambda time_s: SAG_RAD - 0.1 * (time_s - 10.0)},
    ],
    ids=["the target moves", "the arm moves"],
)
def test_a_motion_is_no_rest_and_what_is_known_stays(sag, moving):
    watch(sag, 0.6)
    after_rad = watch(sag, 0.9, **moving, begin_s=10.0)
    np.testing.assert_allclose(after_rad, SAG_RAD, atol=SagEstimate.STILL_RAD)


def test_more_than_the_weight_is_something_else_and_makes_it_know_nothing(sag):
    watch(sag, 0.6)
    assert not watch(sag, 2.0, off=lambda _: -3.0 * SAG_RAD, begin_s=1.0).any()


def test_what_happens_between_two_looks_is_no_rest(sag):
    watch(sag, 0.4)
    sag.look_away()
    assert not watch(sag, 0.4, begin_s=0.4).any()


def test_a_clock_that_is_set_back_begins_anew(sag):
    watch(sag, 0.4, begin_s=100.0)
    assert not watch(sag, 0.4).any()
    np.testing.assert_allclose(watch(sag, 0.4, begin_s=0.4), SAG_RAD)


def test_what_is_forgotten_is_learnt_anew(sag):
    watch(sag, 0.6)
    sag.forget()
    assert not watch(sag, 0.4, begin_s=1.0).any()


def test_a_hold_is_never_beyond_the_last_target(sag):
    watch(sag, 0.6)
    measured_rad = TARGET_RAD - SAG_RAD
    np.testing.assert_allclose(sag.held(measured_rad, TARGET_RAD), TARGET_RAD)
    nearer_rad = measured_rad + 0.5 * SAG_RAD
    np.testing.assert_allclose(sag.held(measured_rad, nearer_rad), nearer_rad)
    np.testing.assert_allclose(sag.held(measured_rad, measured_rad - SAG_RAD), measured_rad)
    np.testing.assert_allclose(sag.held(measured_rad, None), measured_rad)
