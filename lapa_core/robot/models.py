# SPDX-License-Identifier: Apache-2.0
"""Kinematic constants of the supported arms; the simulator and the URDF are built from, or tested against, these.

Sources: Interbotix `mr_descriptions.py` (screws), the URDFs (origins, limits) and the motor configuration files,
humble a4b7e51; product of exponentials and URDF chain agree to 3e-16. Frame: `base_link`, x forward, z up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import ContractError

JOINT_NAMES = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
_FULL_TURN = math.pi - 1e-5
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmModel:
    """One six-joint arm. All joints are revolute; their order is `JOINT_NAMES`."""

    name: str
    """Interbotix robot model, for example `wx250s`."""
    origins_m: tuple[tuple[str, tuple[float, float, float]], ...]
    """(child link, parent -> child offset at zero joints [m]), from `base_link` to `ee_gripper_link`."""
    lower_rad: Array
    """(6,) lower joint limits [rad]."""
    upper_rad: Array
    """(6,) upper joint limits [rad]."""
    velocity_rad_s: Array
    """(6,) joint speed limits [rad/s]."""
    effort_nm: Array
    """(6,) joint effort limits of the URDF [N m]."""
    sleep_rad: Array
    """(6,) the folded pose in which torque may be cut [rad]."""
    finger_gap_m: tuple[float, float]
    """Total gap between the fingers, closed and open [m]; Interbotix's `linear_position` command."""

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The six joint names, base to tip."""
        return JOINT_NAMES

    @property
    def axes(self) -> Array:
        """(6, 3) rotation axis of each joint in `base_link` at zero joints."""
        return np.array(
            [[0, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float64
        )

    @property
    def joint_origins_m(self) -> Array:
        """(6, 3) position of each joint in `base_link` at zero joints [m]."""
        return np.cumsum([offset for _, offset in self.origins_m], axis=0)[:6]

    @property
    def screws_66(self) -> Array:
        """(6, 6) space screws at zero joints, one row [w | v] per joint; v = -w x origin [m]."""
        return np.concatenate([self.axes, -np.cross(self.axes, self.joint_origins_m)], axis=1)

    @property
    def home_pose_44(self) -> Array:
        """(4, 4) pose of `ee_gripper_link` in `base_link` at zero joints (a singular posture)."""
        pose = np.eye(4)
        pose[:3, 3] = np.sum([offset for _, offset in self.origins_m], axis=0)
        return pose


def _model(name: str, lengths: dict[str, float], limits: list[tuple[float, float]], shoulder_sleep_rad: float,
           gap_m: tuple[float, float]) -> ArmModel:  # fmt: skip
    origins = (
        ("waist", (0.0, 0.0, lengths["base_z"])),
        ("shoulder", (0.0, 0.0, lengths["shoulder_z"])),
        ("elbow", (lengths["elbow_x"], 0.0, lengths["elbow_z"])),
        ("forearm_roll", (lengths["forearm_x"], 0.0, 0.0)),
        ("wrist_angle", (lengths["wrist_x"], 0.0, 0.0)),
        ("wrist_rotate", (lengths["rotate_x"], 0.0, 0.0)),
        ("ee_arm", (lengths["ee_arm_x"], 0.0, 0.0)),
        ("ee_bar", (lengths["ee_bar_x"], 0.0, 0.0)),
        ("ee_gripper", (lengths["ee_gripper_x"], 0.0, 0.0)),
    )
    lower, upper = np.array(limits).T
    return ArmModel(
        name=name, origins_m=origins, lower_rad=lower, upper_rad=upper, velocity_rad_s=np.full(6, math.pi),
        effort_nm=np.array([10.0, 20.0, 15.0, 2.0, 5.0, 1.0]),
        sleep_rad=np.array([0.0, shoulder_sleep_rad, 1.55, 0.0, 0.8, 0.0]), finger_gap_m=gap_m,
    )  # fmt: skip


_TURN = (-_FULL_TURN, _FULL_TURN)
_WX250S = _model(
    "wx250s",
    {"base_z": 0.072, "shoulder_z": 0.03865, "elbow_x": 0.04975, "elbow_z": 0.25, "forearm_x": 0.175,
     "wrist_x": 0.075, "rotate_x": 0.065, "ee_arm_x": 0.043, "ee_bar_x": 0.023, "ee_gripper_x": 0.027575},
    [_TURN, (-1.88496, 1.98968), (-2.14675, 1.60570), _TURN, (-1.74533, 2.14675), _TURN], -1.80, (0.030, 0.074),
)  # fmt: skip
_VX300S = _model(
    "vx300s",
    {"base_z": 0.079, "shoulder_z": 0.04805, "elbow_x": 0.05955, "elbow_z": 0.30, "forearm_x": 0.200,
     "wrist_x": 0.100, "rotate_x": 0.069744, "ee_arm_x": 0.042825, "ee_bar_x": 0.025875, "ee_gripper_x": 0.0385},
    [_TURN, (-1.85005, 1.25664), (-1.76278, 1.60570), _TURN, (-1.86750, 2.23402), _TURN], -1.85, (0.042, 0.114),
)  # fmt: skip

ARM_MODELS = {model.name: model for model in (_WX250S, _VX300S)}


def get_arm_model(name: str) -> ArmModel:
    """Return the constants of a robot model.

    Raises:
        ContractError: no such model.
    """
    if name not in ARM_MODELS:
        raise ContractError(f"robot model {name!r} is unknown; allowed are {sorted(ARM_MODELS)}")
    return ARM_MODELS[name]
