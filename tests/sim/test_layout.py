# SPDX-License-Identifier: Apache-2.0
"""Layouts: apart, on the board, within reach, and with the task still to do."""

import numpy as np
import pytest

from lapa_core.errors import ContractError
from lapa_core.robot.models import get_arm_model
from lapa_core.sim import layout as layout_module
from lapa_core.sim.geometry import BOARD_MAX_M, BOARD_MIN_M
from lapa_core.sim.layout import sample_layout
from lapa_core.sim.tasks import sample_task
from lapa_core.sim.world import tool_down_joints


def test_layouts_are_seeded_apart_and_on_the_board():
    for seed in range(30):
        layout = sample_layout(np.random.default_rng(seed))
        assert layout == sample_layout(np.random.default_rng(seed))
        xy = np.array([[pose.x_m, pose.y_m] for pose in layout.blocks.values()])
        gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + np.eye(4)
        assert gaps.min() > 0.06, "two blocks, whatever their yaw, do not touch"
        assert (xy > BOARD_MIN_M).all()
        assert (xy < BOARD_MAX_M).all()
        assert np.linalg.norm(xy - layout.tool_xy_m, axis=1).min() > 0.05


def test_no_sampled_task_is_done_at_the_start(world):
    rng = np.random.default_rng(1)
    for _ in range(60):
        task = sample_task(rng)
        world.reset(layout=sample_layout(rng, task))
        assert not task.success(world), task


def test_the_tool_can_be_where_the_arm_already_is():
    layout = sample_layout(np.random.default_rng(0), tool_xy_m=(0.25, 0.02))
    assert layout.tool_xy_m == (0.25, 0.02)


def test_an_impossible_layout_says_what_to_do(monkeypatch):
    monkeypatch.setattr(layout_module, "_ATTEMPTS", 0)
    with pytest.raises(ContractError, match="bring the tool over the board"):
        sample_layout(np.random.default_rng(0))


def test_every_corner_of_the_board_is_within_reach():
    arm = get_arm_model("wx250s")
    for x_m in (BOARD_MIN_M[0], BOARD_MAX_M[0]):
        for y_m in (BOARD_MIN_M[1], BOARD_MAX_M[1]):
            joints = tool_down_joints(arm, (x_m, y_m))
            assert (joints > arm.lower_rad).all()
            assert (joints < arm.upper_rad).all()
    with pytest.raises(ContractError, match=r"0\.47 m"):
        tool_down_joints(arm, (0.7, 0.0))
