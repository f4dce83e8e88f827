# SPDX-License-Identifier: Apache-2.0
"""Physics, servos and cameras of the table world."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lapa_core.errors import ActionError, ContractError, SetupError
from lapa_core.robot.models import get_arm_model
from lapa_core.sim.world import TabletopWorld, tool_down_joints


def test_resets_are_seeded(world):
    first = world.reset(seed=5)
    assert world.reset(seed=5) == first
    assert world.reset() != first


def test_the_arm_starts_over_the_layouts_tool_position_with_the_gripper_closed(world):
    layout = world.reset(seed=1)
    assert np.allclose(world.tool_xy_m, layout.tool_xy_m, atol=2e-4)
    assert world.gripper == 0.0
    assert world.time_s == 0.0
    assert np.allclose(world.ee_pose_44[:3, 0], [0, 0, -1], atol=2e-3), "the tool points down"


def test_servos_reach_their_targets_and_the_gripper_opens(world):
    layout = world.reset(seed=2)
    target = tool_down_joints(world.arm, np.array(layout.tool_xy_m) * 0.97, height_m=0.08)
    world.set_joint_targets(target, 1.0)
    world.step(1.0)
    assert np.abs(world.joints_rad - target).max() < 2e-3
    assert world.gripper > 0.98
    assert np.abs(world.joint_velocities_rad_s).max() < 1e-2
    assert world.time_s == pytest.approx(1.0)


def test_nothing_moves_by_itself(world):
    world.reset(seed=3)
    before = {name: position.copy() for name, position in world.block_positions_m.items()}
    joints = world.joints_rad
    world.step(2.0)
    for name, position in world.block_positions_m.items():
        assert np.linalg.norm(position - before[name]) < 1e-3, name
    assert np.abs(world.joints_rad - joints).max() < 2e-3


def test_bad_targets_are_refused_and_the_old_ones_stay(world):
    world.reset(seed=4)
    before = world.data.ctrl.copy()
    for joints, gripper in ((np.full(6, np.nan), 0.0), (np.zeros(5), 0.0), (np.zeros(6), np.inf)):
        with pytest.raises(ActionError, match="finite"):
            world.set_joint_targets(joints, gripper)
        assert np.array_equal(world.data.ctrl, before)


@pytest.mark.parametrize("camera", ["front", "wrist"])
@pytest.mark.parametrize("size_px", [64, 480])
def test_cameras(world, camera, size_px):
    image = world.render(camera, size_px)
    assert image.shape == (size_px, size_px, 3)
    assert image.dtype == np.uint8
    assert image.std() > 15, "something is in the picture"


def test_fine_pictures_have_shadows_and_leave_the_fast_ones_alone(world):
    world.reset(seed=0)
    fast = world.render("front", 128)
    fine = world.render("front", 128, fine=True)
    assert fine.mean() < fast.mean() - 1
    assert np.array_equal(world.render("front", 128), fast)


def test_cameras_that_do_not_exist_are_refused(world):
    with pytest.raises(ContractError, match="wrist"):
        world.render("side")
    with pytest.raises(ContractError, match="480"):
        world.render("front", 481)


def test_the_other_arm_works_too():
    with TabletopWorld(arm=get_arm_model("vx300s"), seed=1) as world:
        assert np.allclose(world.ee_pose_44[:3, 0], [0, 0, -1], atol=2e-3)


@pytest.mark.parametrize(
    "breakage",
    ["", "import ctypes.util\nctypes.util.find_library = lambda name: None\n"],
    ids=["no driver", "no libraries"],
)
def test_missing_gl_says_what_to_install(breakage):
    code = (
        breakage + "from lapa_core.errors import SetupError\n"
        "from lapa_core.sim.world import TabletopWorld\n"
        "try:\n    TabletopWorld().render()\n"
        "except SetupError as error:\n    print(error)\n"
    )
    broken = {**os.environ, "MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": "nowhere.json"}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=broken, capture_output=True, text=True, check=True
    )
    assert "apt install libegl1" in answer.stdout, answer.stdout
    assert issubclass(SetupError, RuntimeError)
