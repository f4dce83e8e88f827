# SPDX-License-Identifier: Apache-2.0
"""Our URDFs: their kinematics and limits are those of `lapa_core.robot.models`, and a parser accepts them."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import xacro
from scipy.spatial.transform import Rotation

from lapa_core.robot.kinematics import forward_kinematics
from lapa_core.robot.models import ARM_MODELS
from lapa_core.sim.gl import load_mujoco

URDF_DIR = Path(__file__).parents[1] / "urdf"
MODELS = pytest.mark.parametrize("model", ARM_MODELS.values(), ids=ARM_MODELS.keys())
CHAIN = [
    "base_link", "shoulder_link", "upper_arm_link", "upper_forearm_link", "lower_forearm_link", "wrist_link",
    "gripper_link", "ee_arm_link", "gripper_bar_link", "fingers_link", "ee_gripper_link",
]  # fmt: skip
"""Links from base to tip, as drivers, TF users and MoveIt configurations of the arm name them."""


def expand(model):
    return xacro.process_file(str(URDF_DIR / f"{model.name}.urdf.xacro")).toxml()


def joints_by_child(urdf):
    return {j.find("child").get("link"): j for j in ElementTree.fromstring(urdf).findall("joint")}


def numbers(text):
    return np.array([float(word) for word in text.split()])


def urdf_pose(urdf, joint_values):
    """Walk from the tip to the base and multiply the joint transforms: the URDF's own definition."""
    joints, pose, link = joints_by_child(urdf), np.eye(4), "ee_gripper_link"
    while link != "base_link":
        joint = joints[link]
        step = np.eye(4)
        if joint.find("origin") is not None:
            assert joint.find("origin").get("rpy") is None
            step[:3, 3] = numbers(joint.find("origin").get("xyz"))
        if joint.get("name") in joint_values:
            axis = numbers(joint.find("axis").get("xyz"))
            step[:3, :3] = Rotation.from_rotvec(axis * joint_values[joint.get("name")]).as_matrix()
        pose, link = step @ pose, joint.find("parent").get("link")
    return pose


@MODELS
def test_urdf_kinematics_are_the_product_of_exponentials(model):
    urdf, rng = expand(model), np.random.default_rng(0)
    for _ in range(20):
        joints = rng.uniform(model.lower_rad, model.upper_rad)
        pose = urdf_pose(urdf, dict(zip(model.joint_names, joints, strict=True)))
        assert np.allclose(pose, forward_kinematics(model, joints), atol=1e-12)


@MODELS
def test_urdf_limits_are_those_of_the_controller(model):
    joints = {j.get("name"): j for j in joints_by_child(expand(model)).values()}
    for index, name in enumerate(model.joint_names):
        limit = joints[name].find("limit")
        given = [float(limit.get(key)) for key in ("lower", "upper", "velocity", "effort")]
        wanted = [
            getattr(model, key)[index]
            for key in ("lower_rad", "upper_rad", "velocity_rad_s", "effort_nm")
        ]
        assert np.allclose(given, wanted, atol=1e-12), name
    near, far = (gap / 2 for gap in model.finger_gap_m)
    for name, wanted in (("left_finger", [near, far]), ("right_finger", [-far, -near])):
        limit = joints[name].find("limit")
        assert np.allclose([float(limit.get("lower")), float(limit.get("upper"))], wanted)


@MODELS
def test_frames_have_the_names_of_the_arm(model):
    joints = joints_by_child(expand(model))
    chain = ["ee_gripper_link"]
    while chain[-1] in joints:
        chain.append(joints[chain[-1]].find("parent").get("link"))
    assert chain[::-1] == CHAIN
    assert {"left_finger_link", "right_finger_link", "gripper_prop_link"} <= joints.keys()


@MODELS
def test_a_physics_engine_accepts_every_mass_and_inertia(model):
    compiled = load_mujoco().MjModel.from_xml_string(expand(model))
    assert compiled.nq == 9  # six arm joints, two fingers, the propeller
    assert (compiled.body_inertia[1:] >= 0).all()
