# SPDX-License-Identifier: Apache-2.0
"""Kinematics against Modern Robotics' own code, and inverse kinematics by properties."""

import modern_robotics
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lapa_core.robot.kinematics import ee_jacobian, forward_kinematics, solve_ik
from lapa_core.robot.models import ARM_MODELS, get_arm_model

MODELS = pytest.mark.parametrize("model", ARM_MODELS.values(), ids=ARM_MODELS.keys())

# Interbotix mr_descriptions.py, rows [w | v]: written out here so that the constants are held twice.
PUBLISHED = {
    "wx250s": (
        [[0, 0, 1, 0, 0, 0], [0, 1, 0, -0.11065, 0, 0], [0, 1, 0, -0.36065, 0, 0.04975],
         [1, 0, 0, 0, 0.36065, 0], [0, 1, 0, -0.36065, 0, 0.29975], [1, 0, 0, 0, 0.36065, 0]],
        [0.458325, 0, 0.36065],
    ),
    "vx300s": (
        [[0, 0, 1, 0, 0, 0], [0, 1, 0, -0.12705, 0, 0], [0, 1, 0, -0.42705, 0, 0.05955],
         [1, 0, 0, 0, 0.42705, 0], [0, 1, 0, -0.42705, 0, 0.35955], [1, 0, 0, 0, 0.42705, 0]],
        [0.536494, 0, 0.42705],
    ),
}  # fmt: skip


def random_joints(model, rng, margin=0.0):
    return rng.uniform(model.lower_rad + margin, model.upper_rad - margin)


@MODELS
def test_constants_are_the_published_ones(model):
    screws, home = PUBLISHED[model.name]
    assert np.allclose(model.screws_66, screws, atol=1e-12)
    assert np.allclose(model.home_pose_44[:3, 3], home, atol=1e-12)


@MODELS
def test_forward_kinematics_is_the_product_of_exponentials(model):
    rng = np.random.default_rng(0)
    for _ in range(30):
        joints = random_joints(model, rng)
        expected = modern_robotics.FKinSpace(model.home_pose_44, model.screws_66.T, joints)
        assert np.allclose(forward_kinematics(model, joints), expected, atol=1e-12)


@MODELS
def test_jacobian_is_the_derivative_of_forward_kinematics(model):
    rng, step = np.random.default_rng(1), 1e-6
    for _ in range(10):
        joints = random_joints(model, rng)
        jacobian = ee_jacobian(model, joints)
        for column in range(6):
            nudge = np.eye(6)[column] * step
            ahead, behind = (
                forward_kinematics(model, joints + nudge),
                forward_kinematics(model, joints - nudge),
            )
            linear = (ahead[:3, 3] - behind[:3, 3]) / (2 * step)
            angular = Rotation.from_matrix(ahead[:3, :3] @ behind[:3, :3].T).as_rotvec() / (
                2 * step
            )
            assert np.allclose(jacobian[:, column], [*linear, *angular], atol=1e-6)


@MODELS
def test_inverse_kinematics_returns_to_nearby_poses(model):
    rng, solved = np.random.default_rng(2), 0
    ready = np.array([0.0, -0.1, 0.75, 0.0, 0.9, 0.0])
    for _ in range(100):
        seed = ready + rng.uniform(-0.15, 0.15, 6)
        target_44 = forward_kinematics(model, seed + rng.uniform(-0.1, 0.1, 6))
        solution = solve_ik(model, target_44, seed)
        assert solution.reached
        assert np.allclose(forward_kinematics(model, solution.joints_rad), target_44, atol=2e-3)
        solved += np.abs(solution.joints_rad - seed).max() < 0.5
    assert solved == 100, "solutions must stay on the branch of the seed"


@MODELS
def test_at_the_singular_home_pose_no_joint_flips(model):
    """Regression pinned: Interbotix's solver turns forearm and wrist by about 1.57 rad for 1 cm here."""
    target_44 = model.home_pose_44.copy()
    target_44[1, 3] += 0.01
    target_44[0, 3] -= 0.005
    solution = solve_ik(model, target_44, np.zeros(6))
    assert np.abs(solution.joints_rad).max() < 0.6
    assert solution.smallest_singular_value < 0.06


@MODELS
def test_limits_and_their_margin_hold_for_unreachable_targets(model):
    rng = np.random.default_rng(3)
    for _ in range(30):
        target_44 = np.eye(4)
        target_44[:3, 3] = rng.uniform(-2, 2, 3)
        solution = solve_ik(model, target_44, random_joints(model, rng), margin_rad=0.05)
        assert (solution.joints_rad >= model.lower_rad + 0.05 - 1e-12).all()
        assert (solution.joints_rad <= model.upper_rad - 0.05 + 1e-12).all()
        assert np.isfinite(solution.joints_rad).all()


def test_unknown_models_name_the_known_ones():
    with pytest.raises(ValueError, match="wx250s"):
        get_arm_model("wx200")
