# SPDX-License-Identifier: Apache-2.0
"""4x4 poses to `geometry_msgs/Pose` and back; quaternions exist on the wire only."""

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation


def to_pose(pose_44: NDArray[np.float64]) -> Pose:
    """Return a (4, 4) pose [m] as a message."""
    x, y, z, w = Rotation.from_matrix(pose_44[:3, :3]).as_quat().tolist()
    position = Point(x=float(pose_44[0, 3]), y=float(pose_44[1, 3]), z=float(pose_44[2, 3]))
    return Pose(position=position, orientation=Quaternion(x=x, y=y, z=z, w=w))


def from_pose(pose: Pose) -> NDArray[np.float64]:
    """Return a pose message as (4, 4) [m]."""
    pose_44 = np.eye(4)
    turn = pose.orientation
    pose_44[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    pose_44[:3, 3] = [pose.position.x, pose.position.y, pose.position.z]
    return pose_44


def position_to_pose(position_m: NDArray[np.float64]) -> Pose:
    """Return a (3,) position [m] as an unrotated pose message."""
    x, y, z = position_m.tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(w=1.0))
