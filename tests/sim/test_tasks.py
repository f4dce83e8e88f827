# SPDX-License-Identifier: Apache-2.0
"""What counts as done, at and around each threshold."""

import numpy as np
import pytest

from lapa_core.sim.layout import BlockPose, Layout
from lapa_core.sim.tasks import DIRECTION_XY, parse_instruction

FAR = {
    "red": BlockPose(0.20, -0.12, 0.0),
    "green": BlockPose(0.40, -0.12, 0.0),
    "blue": BlockPose(0.20, 0.12, 0.0),
    "yellow": BlockPose(0.40, 0.12, 0.0),
}


def place(world, tool_xy_m=(0.30, 0.0), **moved):
    world.reset(layout=Layout({**FAR, **moved}, tool_xy_m))


@pytest.mark.parametrize(("distance_m", "done"), [(0.043, True), (0.047, False)])
def test_point_to_block(world, distance_m, done):
    place(world, (0.30, 0.0), red=BlockPose(0.30 - distance_m, 0.0, 0.0))
    assert parse_instruction("point to the red block").success(world) is done
    assert not parse_instruction("point to the green block").success(world)


def test_point_to_block_needs_the_nearest_block(world):
    place(world, (0.30, 0.0), red=BlockPose(0.26, 0.0, 0.0), blue=BlockPose(0.30, 0.035, 0.0))
    assert not parse_instruction("point to the red block").success(world)
    assert parse_instruction("point to the blue block").success(world)


@pytest.mark.parametrize("direction", DIRECTION_XY)
@pytest.mark.parametrize(
    ("along_m", "aside_m", "done"),
    [
        (0.052, 0.0, True),
        (0.048, 0.0, False),
        (0.06, 0.03, True),
        (0.06, 0.04, False),
        (-0.06, 0.0, False),
    ],
)
def test_push_direction(world, direction, along_m, aside_m, done):
    place(world)
    forward = np.array(DIRECTION_XY[direction])
    moved = along_m * forward + aside_m * np.array([-forward[1], forward[0]])
    world.start_positions_m["red"] = world.block_positions_m["red"] - [*moved, 0.0]
    words = {"toward": "toward the robot", "away": "away from the robot"}.get(direction, direction)
    assert parse_instruction(f"push the red block {words}").success(world) is done
    assert not parse_instruction(f"push the blue block {words}").success(world)


def test_left_is_left_in_the_picture(world):
    """The camera looks back at the robot: its left is the robot's right."""
    columns = {}
    for name, y_m in (("left", -0.08), ("right", 0.08)):
        place(world, (0.20, 0.0), red=BlockPose(0.30, y_m, 0.0))
        image = world.render("front", 64).astype(int)
        red = (image[..., 0] > 100) & (image[..., 1] < 70) & (image[..., 2] < 70)
        columns[name] = np.flatnonzero(red.any(axis=0)).mean()
    assert columns["left"] < columns["right"] - 10
    assert np.sign(DIRECTION_XY["left"][1]) == -1


@pytest.mark.parametrize(("distance_m", "done"), [(0.060, True), (0.068, False)])
def test_push_to_block(world, distance_m, done):
    place(world, red=BlockPose(0.40 - distance_m, 0.12, 0.0))
    assert parse_instruction("push the red block to the yellow block").success(world) is done
    assert not parse_instruction("push the red block to the blue block").success(world)


def test_a_new_instruction_counts_from_where_the_blocks_are(world):
    place(world)
    world.start_positions_m["red"] = world.block_positions_m["red"] - [0.06, 0.0, 0.0]
    task = parse_instruction("push the red block away from the robot")
    assert task.success(world)
    world.mark_start()
    assert not task.success(world)
