# SPDX-License-Identifier: Apache-2.0
"""Apply a delta to a pose, and read the delta between two poses.

Poses are 4x4 homogeneous matrices `base_link -> ee_gripper_link`. Rotation vectors are scipy's:
the library that the field trusts, rather than another `expm` of ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lapa_core.actions.delta import EndEffectorDelta

Pose = NDArray[np.float64]


def apply_delta(pose_44: Pose, delta: EndEffectorDelta) -> Pose:
    """Return `pose_44` moved by `delta`: translation in base axes, rotation left-composed about the EE point."""
    moved = pose_44.copy()
    moved[:3, 3] += delta.translation_m
    turn = Rotation.from_rotvec(np.array(delta.rotation_rad))  # scipy 1.15 needs a writable array
    rotation = turn * Rotation.from_matrix(pose_44[:3, :3])
    moved[:3, :3] = rotation.as_matrix()
    return moved


def delta_between(start_44: Pose, end_44: Pose, gripper: float) -> EndEffectorDelta:
    """Return the delta that takes `start_44` to `end_44`; the inverse of `apply_delta`.

    The rotation vector has a length of at most pi [rad].
    """
    rotation = Rotation.from_matrix(end_44[:3, :3]) * Rotation.from_matrix(start_44[:3, :3]).inv()
    return EndEffectorDelta(end_44[:3, 3] - start_44[:3, 3], rotation.as_rotvec(), gripper)


def pose_to_vector(pose_44: Pose) -> NDArray[np.float64]:
    """Return (6,): position [m] and rotation vector [rad] of a pose in `base_link`."""
    return np.concatenate([pose_44[:3, 3], Rotation.from_matrix(pose_44[:3, :3]).as_rotvec()])


def vector_to_pose(vector_6: NDArray[np.float64]) -> Pose:
    """Return the 4x4 pose of `pose_to_vector`'s six numbers."""
    pose_44 = np.eye(4)
    pose_44[:3, 3] = vector_6[:3]
    pose_44[:3, :3] = Rotation.from_rotvec(vector_6[3:]).as_matrix()
    return pose_44
