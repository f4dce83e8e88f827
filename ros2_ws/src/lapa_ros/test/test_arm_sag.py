# SPDX-License-Identifier: Apache-2.0
"""What is taken for the arm's weight, what is not, and that a hold is never beyond the last target."""

import numpy as np
import pytest
from lapa_ros.arm_sag import SagGuard

from lapa_core.robot.contract import load_contract
from lapa_core.robot.kinematics import ee_jacobian

CONTRACT = load_contract("wx250s")
READY_RAD = np.array(CONTRACT.ready_joints_rad)
UPWARDS = np.array([0, -1, -1, 0, 0, 0])
"""The gripper hangs below the wrist, which carries nothing then."""
SAG_RAD = 0.05 * UPWARDS


@pytest.fixture
def guard():
    return SagGuard(CONTRACT.arm)


def hold(guard, measured_rad, stamp_s=1e3):
    return guard.hold(measured_rad, stamp_s)


def send(guard, seconds, target=lambda _: READY_RAD, begin_s=0.0):
    """Send targets at 50 Hz."""
    for time_s in begin_s + np.arange(0.0, seconds, 0.02):
        guard.sent(target(time_s), time_s)


def test_two_joints_lift_the_arm_in_the_ready_pose():
    lever_m = ee_jacobian(CONTRACT.arm, READY_RAD)[2]
    np.testing.assert_array_equal(np.sign(lever_m) * (np.abs(lever_m) > SagGuard.LEVER_M), UPWARDS)


def test_before_the_window_is_full_nothing_is_known(guard):
    np.testing.assert_array_equal(hold(guard, READY_RAD - SAG_RAD), READY_RAD - SAG_RAD)
    send(guard, 0.08)
    np.testing.assert_array_equal(hold(guard, READY_RAD - SAG_RAD, 0.08), READY_RAD - SAG_RAD)


def test_an_arm_at_rest_keeps_its_target(guard):
    send(guard, 0.2)
    np.testing.assert_allclose(hold(guard, READY_RAD - SAG_RAD), READY_RAD)


@pytest.mark.parametrize(
    "off_rad",
    [-SAG_RAD, np.array([0.05, 0.0, 0.0, -0.05, 0.0, 0.05]), 4.0 * SAG_RAD],
    ids=["it presses down", "it presses sideways", "more than its weight"],
)
def test_what_is_no_weight_is_let_go(guard, off_rad):
    send(guard, 0.2)
    np.testing.assert_allclose(hold(guard, READY_RAD - off_rad), READY_RAD - off_rad)


def test_a_motion_upwards_is_not_gone_on_with(guard):
    lag_s, speed = 0.04, UPWARDS  # 1 rad/s
    send(guard, 0.5, lambda time_s: READY_RAD + speed * time_s)
    measured_rad = READY_RAD + speed * (0.48 - lag_s)
    np.testing.assert_allclose(hold(guard, measured_rad, 0.48), measured_rad)


def test_joint_states_that_stay_away_in_a_motion_are_no_sag(guard):
    """Regression pinned: the targets went on meanwhile, and were all above the joints that were seen last."""
    send(guard, 0.9, lambda time_s: READY_RAD + 0.1 * UPWARDS * time_s)
    measured_rad = READY_RAD + 0.1 * UPWARDS * 0.36
    np.testing.assert_allclose(hold(guard, measured_rad, 0.4), measured_rad)


def test_of_a_slow_motion_upwards_most_of_the_sag_is_known(guard):
    speed = 0.1 * UPWARDS
    send(guard, 0.5, lambda time_s: READY_RAD + speed * time_s)
    measured_rad = READY_RAD + speed * 0.44 - SAG_RAD
    above_rad = (hold(guard, measured_rad, 0.48) - measured_rad) * UPWARDS
    assert (above_rad <= 0.05 + 1e-9).all()
    assert (above_rad[UPWARDS != 0] >= 0.04).all()


def test_what_is_forgotten_or_timed_by_another_clock_does_not_count(guard):
    send(guard, 0.2)
    guard.forget()
    np.testing.assert_array_equal(hold(guard, READY_RAD - SAG_RAD), READY_RAD - SAG_RAD)
    send(guard, 0.2, begin_s=100.0)
    send(guard, 0.06)
    np.testing.assert_array_equal(hold(guard, READY_RAD - SAG_RAD, 0.06), READY_RAD - SAG_RAD)
