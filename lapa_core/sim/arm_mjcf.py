# SPDX-License-Identifier: Apache-2.0
"""The arm as MJCF bodies of our own primitives, generated from the kinematic constants of `ArmModel`.

Joint positions, axes and limits are read from the model, never written here, so that the simulated kinematics
cannot differ from those of the controller; a test holds both to the product of exponentials.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

import numpy as np

from lapa_core.robot.models import ArmModel
from lapa_core.sim.appearance import Appearance, Rgb
from lapa_core.sim.geometry import FINGER_REACH_M, TOOL_HALF_WIDTH_M

LINK_NAMES = ("shoulder_link", "upper_arm_link", "upper_forearm_link", "lower_forearm_link", "wrist_link",
              "gripper_link")  # fmt: skip
"""Body that each of the six joints moves, in joint order; the names of the URDF."""
FINGER_JOINTS = ("left_finger", "right_finger")
_LINK_RADIUS_M = 0.0095
_ARMATURE = (0.12, 0.12, 0.08, 0.02, 0.03, 0.01)
"""Reflected motor inertia per joint [kg m^2]; geared servos are dominated by it."""
_STIFFNESS = (1400.0, 1400.0, 900.0, 160.0, 260.0, 80.0)
"""Position gain per joint [N m/rad]: about 100 rad/s of bandwidth; damping is critical."""


def numbers(*values: float) -> str:
    """Return numbers as an MJCF attribute, exact enough to survive the round trip."""
    return " ".join(repr(float(value)) for value in values)


def add_arm(worldbody: Element, actuators: Element, arm: ArmModel, look: Appearance) -> None:
    """Append the arm's bodies to `worldbody` and its position servos to `actuators`."""
    base = SubElement(worldbody, "body", name="base_link")
    shoulder_z = arm.joint_origins_m[0][2]
    _visual(base, "cylinder", look.joint_rgb, size=numbers(0.045, 0.5 * shoulder_z), pos=numbers(0, 0, 0.5 * shoulder_z))  # fmt: skip
    _visual(base, "box", look.link_rgb, size=numbers(0.085, 0.065, 0.008), pos=numbers(-0.03, 0, 0.008))
    offsets = dict(arm.origins_m)
    parent = base
    ends = [*(offset for _, offset in arm.origins_m[1:6]), offsets["ee_arm"]]
    for index, (joint, link) in enumerate(zip(arm.joint_names, LINK_NAMES)):
        parent = SubElement(parent, "body", name=link, pos=numbers(*offsets[joint]), gravcomp="1")
        low, high = float(arm.lower_rad[index]), float(arm.upper_rad[index])
        SubElement(
            parent, "joint", name=joint, type="hinge", axis=numbers(*arm.axes[index]),
            range=numbers(low, high), armature=numbers(_ARMATURE[index]), damping="0.2",
        )  # fmt: skip
        SubElement(
            actuators, "position", name=joint, joint=joint, kp=numbers(_STIFFNESS[index]), dampratio="1",
            ctrlrange=numbers(low, high),
        )  # fmt: skip
        _add_link_shape(parent, index, np.asarray(ends[index]), look)
    _add_gripper(parent, actuators, arm, offsets, look)


def _visual(parent: Element, kind: str, rgb: Rgb, mass: float = 0.05, **attributes: str) -> None:
    SubElement(parent, "geom", type=kind, rgba=numbers(*rgb, 1.0), mass=numbers(mass), contype="0", conaffinity="0", **attributes)  # fmt: skip


def _add_link_shape(body: Element, index: int, end_m: np.ndarray, look: Appearance) -> None:
    """Draw one link from its joint at the body's origin to the next joint, with the motor at the joint."""
    if index in (1, 2, 4):  # pitch joints: the motor lies across the arm
        half, radius = (0.012, 0.013) if index == 4 else (0.020, 0.018)  # a slim wrist hides fewer blocks
        _visual(body, "capsule", look.joint_rgb, fromto=numbers(0, -half, 0, 0, half, 0), size=numbers(radius))
    if index == 1:  # the upper arm goes up, then forward to the elbow, as the real bracket does
        corner = (0.0, 0.0, float(end_m[2]))
        _visual(body, "capsule", look.link_rgb, fromto=numbers(0, 0, 0, *corner), size=numbers(_LINK_RADIUS_M + 0.003))
        _visual(body, "capsule", look.link_rgb, fromto=numbers(*corner, *end_m), size=numbers(_LINK_RADIUS_M + 0.001))
    else:
        _visual(body, "capsule", look.link_rgb, fromto=numbers(0, 0, 0, *end_m), size=numbers(_LINK_RADIUS_M))
    if index in (3, 5):  # roll joints: the motor lies along the arm
        _visual(body, "cylinder", look.joint_rgb, fromto=numbers(-0.012, 0, 0, 0.012, 0, 0), size="0.0125")


def _add_gripper(
    wrist: Element, actuators: Element, arm: ArmModel, offsets: dict[str, tuple[float, float, float]], look: Appearance
) -> None:
    """Append gripper bar, wrist camera, two sliding fingers and the `ee_gripper_link` site."""
    ee_arm = SubElement(wrist, "body", name="ee_arm_link", pos=numbers(*offsets["ee_arm"]), gravcomp="1")
    bar_x = offsets["ee_bar"][0]
    tip_x = offsets["ee_gripper"][0] + FINGER_REACH_M
    _visual(ee_arm, "box", look.joint_rgb, size=numbers(0.005, 0.022, 0.006), pos=numbers(bar_x - 0.005, 0, 0))
    _visual(ee_arm, "capsule", look.link_rgb, fromto=numbers(-0.01, 0, 0, bar_x - 0.006, 0, 0), size=numbers(0.009))
    # Looks along the fingers from beside the wrist; camera axes are x right, y up, -z forward.
    SubElement(
        ee_arm, "camera", name="wrist", pos=numbers(-0.045, 0, 0.055), xyaxes="0 -1 0 0.28 0 0.96", fovy="62"
    )
    fingers = SubElement(ee_arm, "body", name="fingers_link", pos=numbers(*offsets["ee_bar"]), gravcomp="1")
    low, high = (gap / 2 for gap in arm.finger_gap_m)
    thickness = TOOL_HALF_WIDTH_M / 2  # half thickness of one finger: two closed fingers make the square tool
    for name, side in zip(FINGER_JOINTS, (1.0, -1.0)):
        finger = SubElement(fingers, "body", name=f"{name}_link", gravcomp="1")
        limits = sorted((side * low, side * high))
        SubElement(finger, "joint", name=name, type="slide", axis="0 1 0", range=numbers(*limits), armature="0.5")
        SubElement(
            actuators, "position", name=name, joint=name, kp="2000", dampratio="1", ctrlrange=numbers(*limits)
        )
        inward = side * (thickness - low)  # the pad's inner face meets the other pad's at the closed gap
        SubElement(
            finger, "geom", name=f"{name}_pad", type="box", rgba=numbers(*look.tool_rgb, 1.0), mass="0.02",
            size=numbers(tip_x / 2, thickness, TOOL_HALF_WIDTH_M), pos=numbers(tip_x / 2, inward, 0),
            contype="2", conaffinity="1", friction="0.3 0.005 0.0001",
        )  # fmt: skip
        _visual(finger, "box", look.joint_rgb, 0.005, size=numbers(0.003, low / 2 + 0.004, 0.006), pos=numbers(0.003, -side * low / 2, 0))  # fmt: skip
    SubElement(fingers, "site", name="ee_gripper_link", pos=numbers(*offsets["ee_gripper"]), size="0.002", rgba="0 0 0 0")
