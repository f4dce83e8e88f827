# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics by the product of exponentials, and damped-least-squares inverse kinematics.

Lynch and Park, "Modern Robotics", chapters 4 to 6; damping after Nakamura and Hanafusa (1986): it grows
as the smallest singular value falls, so that a step near a singularity slows instead of flipping the wrist (what
the Interbotix solver does at its home pose: facts of the robot, 1.5). Numpy and scipy only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lapa_core.robot.models import ArmModel

Array = NDArray[np.float64]

_DAMPED_BELOW = 0.06
"""Smallest singular value of the Jacobian (translation in m) under which damping starts."""
_MAX_DAMPING = 0.05
_ITERATIONS = 12
POSITION_TOLERANCE_M = 2e-4
ROTATION_TOLERANCE_RAD = 2e-3


class IkSolution(NamedTuple):
    """Joints that bring the end effector towards a target, and what is left of the way."""

    joints_rad: Array
    """(6,) joint positions [rad], inside the limits that were given."""
    position_residual_m: float
    """Distance from the target [m]."""
    rotation_residual_rad: float
    """Angle from the target [rad]."""
    smallest_singular_value: float
    """Of the Jacobian at the solution; small means close to a singularity."""

    @property
    def reached(self) -> bool:
        """Whether the target is met within the tolerances."""
        return (
            self.position_residual_m <= POSITION_TOLERANCE_M
            and self.rotation_residual_rad <= ROTATION_TOLERANCE_RAD
        )


def forward_kinematics(model: ArmModel, joints_rad: Array) -> Array:
    """Return the (4, 4) pose of `ee_gripper_link` in `base_link` for (6,) joint positions [rad]."""
    return _joint_transforms(model, joints_rad)[-1] @ model.home_pose_44


def ee_jacobian(model: ArmModel, joints_rad: Array) -> Array:
    """Return the (6, 6) Jacobian: rows 0-2 velocity of the EE point, rows 3-5 angular velocity, `base_link` axes."""
    transforms = _joint_transforms(model, joints_rad)
    position = (transforms[-1] @ model.home_pose_44)[:3, 3]
    columns = []
    for before, axis, origin in zip(
        transforms[:-1], model.axes, model.joint_origins_m, strict=True
    ):
        turned_axis = before[:3, :3] @ axis
        moved_origin = before[:3, :3] @ origin + before[:3, 3]
        columns.append(
            np.concatenate([np.cross(turned_axis, position - moved_origin), turned_axis])
        )
    return np.stack(columns, axis=1)


def solve_ik(
    model: ArmModel, target_44: Array, seed_rad: Array, margin_rad: float = 0.0
) -> IkSolution:
    """Solve for joints near `seed_rad` that put `ee_gripper_link` at `target_44`.

    Args:
        model: the arm.
        target_44: (4, 4) wanted pose in `base_link`.
        seed_rad: (6,) where the arm is or was last sent [rad]; the solution stays on its branch.
        margin_rad: distance kept from every joint limit [rad].
    """
    lower, upper = model.lower_rad + margin_rad, model.upper_rad - margin_rad
    joints = np.clip(np.asarray(seed_rad, dtype=np.float64), lower, upper)
    for _ in range(_ITERATIONS):
        error = _pose_error(forward_kinematics(model, joints), target_44)
        if (
            np.linalg.norm(error[:3]) < POSITION_TOLERANCE_M / 10
            and np.linalg.norm(error[3:]) < 1e-4
        ):
            break
        u, s, vt = np.linalg.svd(ee_jacobian(model, joints))
        damping = _MAX_DAMPING * np.sqrt(max(0.0, 1.0 - (s[-1] / _DAMPED_BELOW) ** 2))
        joints = np.clip(joints + vt.T @ ((u.T @ error) * s / (s**2 + damping**2)), lower, upper)
    error = _pose_error(forward_kinematics(model, joints), target_44)
    smallest = float(np.linalg.svd(ee_jacobian(model, joints), compute_uv=False)[-1])
    return IkSolution(
        joints, float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:])), smallest
    )


def _pose_error(pose_44: Array, target_44: Array) -> Array:
    turn = Rotation.from_matrix(target_44[:3, :3] @ pose_44[:3, :3].T).as_rotvec()
    return np.concatenate([target_44[:3, 3] - pose_44[:3, 3], turn])


def _joint_transforms(model: ArmModel, joints_rad: Array) -> list[Array]:
    """Return seven 4x4: the displacement of everything beyond joint i, for i = 0 (none) to 6 (all)."""
    rotations = Rotation.from_rotvec(
        model.axes * np.asarray(joints_rad, dtype=np.float64)[:, None]
    ).as_matrix()
    total = [np.eye(4)]
    for rotation, origin in zip(rotations, model.joint_origins_m, strict=True):
        step = np.eye(4)
        step[:3, :3] = rotation
        step[:3, 3] = origin - rotation @ origin  # a turn about an axis through `origin`
        total.append(total[-1] @ step)
    return total
