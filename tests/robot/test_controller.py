# SPDX-License-Identifier: Apache-2.0
"""The controller's promises: caps, box, limits, once, and nothing changes when a delta is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.errors import ActionError
from lapa_core.robot.contract import load_contract
from lapa_core.robot.controller import ArmController
from lapa_core.robot.kinematics import forward_kinematics

CONTRACT = load_contract("wx250s_sim")
PERIOD_S = 1 / CONTRACT.control_rate_hz


def move(x=0.0, y=0.0, z=0.0, rotation=(0, 0, 0), gripper=0.0):
    return EndEffectorDelta((x, y, z), rotation, gripper)


def test_deltas_add_up_on_the_commanded_target():
    controller = ArmController(CONTRACT)
    start = controller.target_44[:3, 3].copy()
    for step in range(5):
        controller.apply(move(x=0.02, y=-0.01), step * PERIOD_S)
    assert np.allclose(controller.target_44[:3, 3] - start, [0.1, -0.05, 0.0])
    reached = forward_kinematics(controller.model, controller.sample(10.0))
    assert np.allclose(reached, controller.target_44, atol=2e-3)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(-0.08, 0.08)] * 3, *[st.floats(-0.3, 0.3)] * 3),
        min_size=1,
        max_size=12,
    )
)
def test_no_sequence_of_deltas_leaves_box_limits_or_caps(deltas):
    controller = ArmController(CONTRACT)
    model, previous = controller.model, controller.sample(0.0)
    for step, values in enumerate(deltas):
        before = controller.target_44.copy(), controller.sample(step * PERIOD_S)
        try:
            controller.apply(EndEffectorDelta(values[:3], values[3:], 0.3), step * PERIOD_S)
        except ActionError:
            assert (controller.target_44 == before[0]).all()
            assert (controller.sample(step * PERIOD_S) == before[1]).all()
        assert (controller.target_44[:3, 3] >= np.array(CONTRACT.workspace_min_m) - 1e-9).all()
        assert (controller.target_44[:3, 3] <= np.array(CONTRACT.workspace_max_m) + 1e-9).all()
        joints = controller.sample((step + 1) * PERIOD_S)
        assert np.abs(joints - previous).max() <= CONTRACT.max_joint_step_rad + 1e-9
        assert (joints >= model.lower_rad).all()
        assert (joints <= model.upper_rad).all()
        previous = joints


def test_the_box_stops_a_target_and_says_by_how_much():
    controller = ArmController(CONTRACT)
    clipped = [controller.apply(move(x=-0.05), k * PERIOD_S).clipped_m for k in range(3)]
    assert clipped[0] == 0.0
    assert clipped[-1] == pytest.approx(0.05)
    assert controller.target_44[0, 3] == pytest.approx(CONTRACT.workspace_min_m[0])


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        (move(x=0.06), "translation of 0.0600 m"),
        (move(rotation=(0, 0.3, 0)), "rotation of 0.3000 rad"),
    ],
)
def test_steps_over_the_caps_are_refused_with_the_number(delta, reason):
    with pytest.raises(ActionError, match=reason):
        ArmController(CONTRACT).apply(delta, 0.0)


def test_interpolation_starts_and_ends_at_rest_and_survives_interruption():
    controller = ArmController(CONTRACT)
    controller.apply(move(x=0.04), 0.0)
    times = np.arange(0.0, 0.4, 0.001)
    first = [controller.sample(t) for t in times if t < 0.06]
    controller.apply(move(y=0.04), 0.06)  # half way through the first move
    path = np.array(first + [controller.sample(t) for t in times if t >= 0.06])
    assert np.abs(np.diff(path, axis=0)).max() < 0.012, "no jump when a move is interrupted"
    assert np.allclose(path[-1], controller.sample(9.0))


def test_a_lead_sends_every_target_earlier_and_a_motion_that_is_interrupted_never_turns_back():
    plain, ahead = ArmController(CONTRACT), ArmController(CONTRACT, lead_s=0.02)
    for controller in (plain, ahead):
        controller.apply(move(x=0.02), 0.0)
    times_s = np.arange(0.0, 0.3, 0.01)
    for now_s in times_s:
        np.testing.assert_allclose(ahead.sample(now_s), plain.sample(now_s + 0.02))
    ahead.apply(move(x=0.02), 1.0)
    before = ahead.sample(1.09)
    ahead.apply(move(x=0.02), 1.09)
    joint = int(np.abs(before - ahead.sample(9.0)).argmax())
    path = np.array([before, *(ahead.sample(1.09 + step_s) for step_s in times_s)])[:, joint]
    assert (np.diff(path) * np.sign(path[-1] - path[0]) >= -1e-12).all()


def test_a_reset_commands_the_measured_joints_and_anchors_there():
    controller = ArmController(CONTRACT)
    controller.apply(move(x=0.04), 0.0)
    measured = np.array(CONTRACT.ready_joints_rad) + 0.01
    controller.reset(measured, 0.0)
    assert (controller.sample(0.01) == measured).all()
    assert np.allclose(controller.target_44, forward_kinematics(controller.model, measured))


def test_joints_that_are_not_finite_cannot_anchor():
    with pytest.raises(ActionError, match="six finite numbers"):
        ArmController(CONTRACT).reset(np.array([0, 0, np.nan, 0, 0, 0]), 0.0)


def test_an_arm_outside_the_workspace_box_comes_back_in_steps_of_the_cap():
    controller = ArmController(CONTRACT)
    controller.reset(np.array([0.0, -0.7, 0.2, 0.0, 1.0, 0.0]), 0.0)
    before_m = controller.target_44[:3, 3].copy()
    assert before_m[2] > CONTRACT.workspace_max_m[2] + CONTRACT.max_translation_m
    controller.apply(move(), 0.0)
    moved_m = controller.target_44[:3, 3] - before_m
    assert np.linalg.norm(moved_m) == pytest.approx(CONTRACT.max_translation_m)
    assert moved_m[2] < 0.0
