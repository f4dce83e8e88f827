# SPDX-License-Identifier: Apache-2.0
"""The arm as MJCF bodies of our own primitives, generated from the kinematic constants of `ArmModel`.

Joint positions, axes and limits are read from the model, never written here, so that the simulated kinematics
cannot differ from those of the controller; a test holds both to the product of exponentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from lapa_core.robot.models import ArmModel
from lapa_core.sim.appearance import Appearance, Rgb
from lapa_core.sim.geometry import FINGER_REACH_M, TOOL_HALF_WIDTH_M
from lapa_core.sim.mjcf import Attribute, add

LINK_NAMES = (
    "shoulder_link",
    "upper_arm_link",
    "upper_forearm_link",
    "lower_forearm_link",
    "wrist_link",
    "gripper_link",
)
"""Body that each of the six joints moves, in joint order; the names of the URDF."""
FINGER_JOINTS = ("left_finger", "right_finger")
_LINK_RADIUS_M = 0.0095
"""Thinner than the real links: the front camera must see the blocks behind them."""
_ARMATURE = (0.12, 0.12, 0.08, 0.02, 0.03, 0.01)
"""Reflected motor inertia per joint [kg m^2]; geared servos are dominated by it."""
_STIFFNESS = (1400.0, 1400.0, 900.0, 160.0, 260.0, 80.0)
"""Position gain per joint [N m/rad]: about 100 rad/s of bandwidth; damping is critical."""
_FINGER_STIFFNESS = 2000.0
"""Position gain of a finger [N/m]."""


def add_arm(worldbody: Element, actuators: Element, arm: ArmModel, look: Appearance) -> None:
    """Append the arm's bodies to `worldbody` and its position servos to `actuators`."""
    offsets = dict(arm.origins_m)
    body = add(worldbody, "body", name="base_link")
    half = 0.5 * offsets["waist"][2]
    _shape(body, "cylinder", look.joint_rgb, size=(0.045, half), pos=(0, 0, half))
    _shape(body, "box", look.link_rgb, size=(0.085, 0.065, 0.008), pos=(-0.03, 0, 0.008))
    ends = [*(offset for _, offset in arm.origins_m[1:6]), offsets["ee_arm"]]
    for index, (joint, link) in enumerate(zip(arm.joint_names, LINK_NAMES, strict=True)):
        body = add(body, "body", name=link, pos=offsets[joint], gravcomp=1)
        limits = (arm.lower_rad[index], arm.upper_rad[index])
        add(
            body, "joint", name=joint, type="hinge", axis=arm.axes[index], range=limits,
            armature=_ARMATURE[index], damping=0.2,
        )  # fmt: skip
        _add_servo(actuators, joint, _STIFFNESS[index], limits)
        _draw_link(body, index, ends[index], look)
    _add_gripper(body, actuators, arm, look)


def _add_servo(
    actuators: Element, joint: str, stiffness: float, limits: tuple[float, float]
) -> None:
    add(actuators, "position", name=joint, joint=joint, kp=stiffness, dampratio=1, ctrlrange=limits)


def _shape(
    parent: Element, kind: str, rgb: Rgb, mass: float = 0.05, **attributes: Attribute
) -> None:
    """Append a geom that is seen and has a mass, but touches nothing."""
    add(
        parent, "geom", type=kind, rgba=(*rgb, 1), mass=mass, contype=0, conaffinity=0, **attributes
    )


def _draw_link(body: Element, index: int, end_m: Sequence[float], look: Appearance) -> None:
    """Draw one link from its joint, at the body's origin, to the next joint, with the motor at the joint."""
    if index in (1, 2, 4):  # pitch joints: the motor lies across the arm
        half, radius = (0.012, 0.013) if index == 4 else (0.020, 0.018)
        _shape(body, "capsule", look.joint_rgb, fromto=(0, -half, 0, 0, half, 0), size=(radius,))
    if index in (3, 5):  # roll joints: the motor lies along the arm
        _shape(body, "cylinder", look.joint_rgb, fromto=(-0.012, 0, 0, 0.012, 0, 0), size=(0.0125,))
    if index == 1:  # the upper arm goes up, then forward to the elbow, as the real bracket does
        corner = (0, 0, end_m[2])
        radius = _LINK_RADIUS_M + 0.002
        _shape(body, "capsule", look.link_rgb, fromto=(0, 0, 0, *corner), size=(radius,))
        _shape(body, "capsule", look.link_rgb, fromto=(*corner, *end_m), size=(radius,))
    else:
        _shape(body, "capsule", look.link_rgb, fromto=(0, 0, 0, *end_m), size=(_LINK_RADIUS_M,))


def _add_gripper(wrist: Element, actuators: Element, arm: ArmModel, look: Appearance) -> None:
    """Append gripper bar, wrist camera, two sliding fingers and the `ee_gripper_link` site."""
    offsets = dict(arm.origins_m)
    ee_arm = add(wrist, "body", name="ee_arm_link", pos=offsets["ee_arm"], gravcomp=1)
    bar_x = offsets["ee_bar"][0] - 0.005
    _shape(ee_arm, "box", look.joint_rgb, size=(0.005, 0.022, 0.006), pos=(bar_x, 0, 0))
    _shape(ee_arm, "capsule", look.link_rgb, fromto=(-0.01, 0, 0, bar_x, 0, 0), size=(0.009,))
    # Above the wrist, looking along the fingers; a MuJoCo camera looks along its own -z.
    add(
        ee_arm, "camera", name="wrist", pos=(-0.045, 0, 0.055), xyaxes="0 -1 0 0.28 0 0.96", fovy=62
    )
    fingers = add(ee_arm, "body", name="fingers_link", pos=offsets["ee_bar"], gravcomp=1)
    near, far = (gap / 2 for gap in arm.finger_gap_m)
    tip_x = offsets["ee_gripper"][0] + FINGER_REACH_M
    thickness = TOOL_HALF_WIDTH_M / 2  # of half a finger: two closed fingers make the square tool
    for name, side in zip(FINGER_JOINTS, (1, -1), strict=True):
        finger = add(fingers, "body", name=f"{name}_link", gravcomp=1)
        limits = (min(side * near, side * far), max(side * near, side * far))
        add(finger, "joint", name=name, type="slide", axis=(0, 1, 0), range=limits, armature=0.5)
        _add_servo(actuators, name, _FINGER_STIFFNESS, limits)
        # The pad's inner face meets the other pad's at the closed gap.
        add(
            finger, "geom", name=f"{name}_pad", type="box", rgba=(*look.tool_rgb, 1), mass=0.02,
            size=(tip_x / 2, thickness, TOOL_HALF_WIDTH_M), pos=(tip_x / 2, side * (thickness - near), 0),
            contype=2, conaffinity=1, friction=(0.3, 0.005, 0.0001),
        )  # fmt: skip
        bridge = {"size": (0.003, near / 2 + 0.004, 0.006), "pos": (0.003, -side * near / 2, 0)}
        _shape(finger, "box", look.joint_rgb, 0.005, **bridge)
    add(fingers, "site", name="ee_gripper_link", pos=offsets["ee_gripper"], rgba=(0, 0, 0, 0))
