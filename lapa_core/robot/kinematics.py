# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics by the product of exponentials, and damped-least-squares inverse kinematics.

Lynch and Park, "Modern Robotics", chapters 4 to 6; damping after Nakamura and Hanafusa (1986): it grows
as the smallest singular value falls, so that a step near a singularity slows instead of flipping the wrist (what
the Interbotix solver does at its home pose: facts of the robot, 1.5). Numpy and scipy only.
"""

from __future__ import annotations

from functools import lru_cache
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
    return _joint_transforms(model, joints_rad)[-1] @ _chain(model).home_44


def carried_points(
    model: ArmModel, joints_rad: Array, joints: NDArray[np.int64], positions_m: Array
) -> Array:
    """Return where points of the arm are, (n, 3) [m] in `base_link`, for (6,) joint positions [rad].

    Args:
        model: the arm.
        joints_rad: (6,) joint positions [rad].
        joints: (n,) how many joints, from the base, move each point; 0 to 6.
        positions_m: (n, 3) where they are at zero joints [m].
    """
    transforms = _joint_transforms(model, joints_rad)[joints]
    turned: Array = np.einsum("nij,nj->ni", transforms[:, :3, :3], positions_m)
    return turned + transforms[:, :3, 3]


def ee_jacobian(model: ArmModel, joints_rad: Array) -> Array:
    """Return the (6, 6) Jacobian: rows 0-2 velocity of the EE point, rows 3-5 angular velocity, `base_link` axes."""
    return _jacobian(model, _joint_transforms(model, joints_rad))


def smallest_singular_value(model: ArmModel, joints_rad: Array) -> float:
    """Return that of the Jacobian (translation in m) at (6,) joint positions [rad]; 0 in a singular posture."""
    return float(np.linalg.svd(ee_jacobian(model, joints_rad), compute_uv=False)[-1])


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
    home_44 = _chain(model).home_44
    for _ in range(_ITERATIONS):
        transforms = _joint_transforms(model, joints)
        error = _pose_error(transforms[-1] @ home_44, target_44)
        if (
            np.linalg.norm(error[:3]) < POSITION_TOLERANCE_M / 10
            and np.linalg.norm(error[3:]) < 1e-4
        ):
            break
        u, s, vt = np.linalg.svd(_jacobian(model, transforms))
        damping = _MAX_DAMPING * np.sqrt(max(0.0, 1.0 - (s[-1] / _DAMPED_BELOW) ** 2))
        step = vt.T @ ((u.T @ error) * s / (s**2 + damping**2))
        joints = np.minimum(np.maximum(joints + step, lower), upper)
    else:  # what the last step came to
        transforms = _joint_transforms(model, joints)
        error = _pose_error(transforms[-1] @ home_44, target_44)
    return IkSolution(
        joints,
        float(np.linalg.norm(error[:3])),
        float(np.linalg.norm(error[3:])),
        float(np.linalg.svd(_jacobian(model, transforms), compute_uv=False)[-1]),
    )


def _pose_error(pose_44: Array, target_44: Array) -> Array:
    turn = Rotation.from_matrix(target_44[:3, :3] @ pose_44[:3, :3].T).as_rotvec()
    return np.concatenate([target_44[:3, 3] - pose_44[:3, 3], turn])


class _Chain(NamedTuple):
    """Constants of an arm in the form that the loops need, computed once per arm."""

    axes_63: Array
    origins_63: Array
    skew_633: Array
    skew_squared_633: Array
    home_44: Array


@lru_cache(maxsize=8)
def _chain(model: ArmModel) -> _Chain:
    skew = np.zeros((6, 3, 3))
    for matrix, (x, y, z) in zip(skew, model.axes, strict=True):
        matrix[:] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    return _Chain(model.axes, model.joint_origins_m, skew, skew @ skew, model.home_pose_44)


def _jacobian(model: ArmModel, transforms_744: Array) -> Array:
    chain = _chain(model)
    before = transforms_744[:6, :3, :3]
    position = transforms_744[-1, :3] @ chain.home_44[:, 3]
    axes = np.einsum("ijk,ik->ij", before, chain.axes_63)
    arms = position - np.einsum("ijk,ik->ij", before, chain.origins_63) - transforms_744[:6, :3, 3]
    linear = axes[:, [1, 2, 0]] * arms[:, [2, 0, 1]] - axes[:, [2, 0, 1]] * arms[:, [1, 2, 0]]
    return np.concatenate([linear, axes], axis=1).T


def _joint_transforms(model: ArmModel, joints_rad: Array) -> Array:
    """Return (7, 4, 4): the displacement of everything beyond joint i, for i = 0 (none) to 6 (all)."""
    chain = _chain(model)
    angles = np.asarray(joints_rad, dtype=np.float64)[:, None, None]
    # Rodrigues' formula; each turn is about an axis through the joint's origin.
    rotations = (
        np.eye(3) + np.sin(angles) * chain.skew_633 + (1 - np.cos(angles)) * chain.skew_squared_633
    )
    steps = np.zeros((6, 4, 4))
    steps[:, :3, :3] = rotations
    steps[:, :3, 3] = chain.origins_63 - np.einsum("ijk,ik->ij", rotations, chain.origins_63)
    steps[:, 3, 3] = 1.0
    total = np.empty((7, 4, 4))
    total[0] = np.eye(4)
    for index, step in enumerate(steps):
        total[index + 1] = total[index] @ step
    return total
