# SPDX-License-Identifier: Apache-2.0
"""No part of the arm is sent into the table, and nothing that a tool pointing down can do is refused for it."""

from collections import deque
from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.errors import ActionError, ContractError
from lapa_core.robot.clearance import BAR_OVERHANG_M, FINGER_REACH_M, SAMPLE_RAD, TableClearance
from lapa_core.robot.contract import load_contract
from lapa_core.robot.controller import ArmController
from lapa_core.robot.kinematics import forward_kinematics, solve_ik
from lapa_core.sim import geometry
from lapa_core.sim.world import TabletopWorld, tool_down_joints

CONTRACTS = {name: load_contract(name) for name in ("wx250s", "wx250s_sim", "vx300s", "vx300s_sim")}
SAG_M = 1.5e-3
"""How far a point may sink between two looks at a way [m]."""

contracts = st.sampled_from(sorted(CONTRACTS)).map(CONTRACTS.get)


@st.composite
def postures(draw, contract):
    """Joints anywhere between their limits, (6,) [rad]."""
    share = np.array(draw(st.lists(st.floats(0.0, 1.0), min_size=6, max_size=6)))
    return contract.arm.lower_rad + share * (contract.arm.upper_rad - contract.arm.lower_rad)


def lowest_on_the_way(table, start_rad, end_rad):
    """Return the least spare height of each point on a way [m], looked at far more closely than the check does."""
    way_rad = end_rad - start_rad
    shares = np.linspace(0.0, 1.0, int(np.abs(way_rad).max() / SAMPLE_RAD * 7) + 3)
    return np.min([table.spare_m(start_rad + way_rad * share) for share in shares], axis=0)


def refusal_of(table, start_rad, end_rad):
    """Return why a way is refused; "" where it is not."""
    try:
        table.check_way(start_rad, end_rad)
    except ActionError as error:
        return str(error)
    return ""


@settings(max_examples=25, deadline=None)
@given(
    contracts,
    st.lists(st.tuples(*[st.floats(-0.03, 0.03)] * 3, *[st.floats(-0.14, 0.14)] * 3), min_size=6, max_size=14),
)  # fmt: skip
def test_no_sequence_of_deltas_brings_a_point_below_its_height(contract, deltas):
    controller = ArmController(contract)
    for step, values in enumerate(deltas):
        now_s = 0.3 * step / contract.control_rate_hz  # before the last one is done
        before_rad, before_44 = controller.sample(now_s), controller.target_44.copy()
        try:
            controller.apply(EndEffectorDelta(values[:3], values[3:], 0.0), now_s)
        except ActionError:
            assert (controller.sample(now_s) == before_rad).all()
            assert (controller.target_44 == before_44).all()
        spare_m = lowest_on_the_way(controller.table, before_rad, controller.sample(np.inf))
        assert spare_m.min() > -SAG_M


@settings(max_examples=30, deadline=None)
@given(st.data(), contracts)
def test_a_way_is_refused_exactly_when_a_point_comes_too_low(data, contract):
    table = TableClearance(contract)
    start_rad, end_rad = data.draw(postures(contract)), data.draw(postures(contract))
    assume((table.spare_m(start_rad) > 0.0).all())
    lowest_m = lowest_on_the_way(table, start_rad, end_rad)
    if refusal := refusal_of(table, start_rad, end_rad):
        low = [p.name for p, low_m in zip(table.points, lowest_m, strict=True) if low_m < 0.0]
        assert any(f"the {name} would" in refusal for name in low)
    else:
        assert lowest_m.min() > -SAG_M


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_wherever_a_tool_that_points_down_is_in_the_box_the_arm_may_go_to_its_poses(contract):
    """The whole box as well: its floor was set for the table."""
    table, model = TableClearance(contract), contract.arm
    poses = [np.array(contract.ready_joints_rad), model.sleep_rad]
    low_m, high_m = contract.workspace_min_m, contract.workspace_max_m
    reached = 0
    for x, y, z in product(*(np.linspace(low, high, 3) for low, high in zip(low_m, high_m, strict=True))):  # fmt: skip
        try:
            joints_rad = tool_down_joints(model, (x, y), z)
        except ContractError:  # a corner out of reach
            continue
        reached += 1
        assert table.spare_m(joints_rad).min() > 0.0
        for pose_rad in poses:
            table.check_way(joints_rad, pose_rad)
            table.check_way(pose_rad, joints_rad)
    assert reached >= 12
    table.check_way(*poses)
    table.check_way(*reversed(poses))


@pytest.mark.parametrize(
    ("rotation_rad", "names"),
    [
        ((0.12, 0.0, 0.0), "right finger tip|right end of the gripper's bar"),
        ((-0.12, 0.0, 0.0), "left finger tip|left end of the gripper's bar"),
        ((0.0, -0.12, 0.0), "gripper|back of the gripper|wrist"),
    ],
)
def test_a_tool_that_is_tilted_at_the_floor_of_the_box_is_stopped_with_the_part_that_is_lowest(
    rotation_rad, names
):
    """Regression pinned: the box bounds the end-effector point, about which it turns."""
    contract = CONTRACTS["wx250s"]
    controller = ArmController(contract)
    controller.reset(tool_down_joints(contract.arm, (0.38, 0.0), contract.workspace_min_m[2]), 1.0)
    delta = EndEffectorDelta((0.0, 0.0, 0.0), rotation_rad, 1.0)
    controller.apply(delta, 0.0)
    with pytest.raises(ActionError, match=f"the ({names}) would come down to z = .* mm; allowed"):
        deque(map(partial(controller.apply, delta), range(1, 12)), maxlen=0)


def test_what_is_too_low_may_rise_but_not_sink():
    contract = CONTRACTS["wx250s"]
    controller = ArmController(contract)
    down_rad = tool_down_joints(contract.arm, (0.3, 0.0), contract.workspace_min_m[2])
    rolled_44 = forward_kinematics(contract.arm, down_rad)
    rolled_44[:3, :3] = Rotation.from_rotvec([0.5, 0.0, 0.0]).as_matrix() @ rolled_44[:3, :3]
    low_rad = solve_ik(contract.arm, rolled_44, down_rad).joints_rad  # a finger in the table
    assert controller.table.spare_m(low_rad).min() < -0.01
    controller.reset(low_rad, 0.0)
    controller.apply(EndEffectorDelta((0.0, 0.0, 0.004), (0, 0, 0), 0.0), 0.0)
    controller.apply(EndEffectorDelta((0.01, 0.01, 0.0), (0, 0, 0), 0.0), 1.0)
    with pytest.raises(ActionError, match="finger tip would come down"):
        controller.apply(EndEffectorDelta((0.0, 0.0, -0.004), (0, 0, 0), 0.0), 2.0)


@pytest.mark.parametrize("name", ["wx250s", "vx300s"])
def test_the_points_are_where_the_simulators_arm_has_them(name):
    contract = CONTRACTS[name]
    table, world = TableClearance(contract), TabletopWorld(arm=contract.arm)
    bodies = {"elbow": "upper_forearm_link", "forearm": "lower_forearm_link", "wrist": "wrist_link",
              "back of the gripper": "gripper_link", "gripper": "ee_arm_link"}  # fmt: skip
    places = {point.name: index for index, point in enumerate(table.points)}
    rng = np.random.default_rng(0)
    for _ in range(5):
        joints_rad = rng.uniform(contract.arm.lower_rad, contract.arm.upper_rad)
        world.reset(joints_rad=joints_rad)
        heights_m = table.spare_m(joints_rad) + table.table_m + [p.clearance_m for p in table.points]  # fmt: skip
        for point, body in bodies.items():
            assert heights_m[places[point]] == pytest.approx(world.data.body(body).xpos[2], abs=1e-9)  # fmt: skip
        pose_44 = forward_kinematics(contract.arm, joints_rad)
        for side, word in ((1, "left"), (-1, "right")):
            half_m = side * contract.arm.finger_gap_m[1] / 2
            back_m = dict(contract.arm.origins_m)["ee_gripper"][0]
            tip_m = pose_44 @ [FINGER_REACH_M, half_m, 0.0, 1.0]
            bar_m = pose_44 @ [-back_m, half_m + side * BAR_OVERHANG_M, 0.0, 1.0]
            assert heights_m[places[f"{word} finger tip"]] == pytest.approx(tip_m[2])
            assert heights_m[places[f"{word} end of the gripper's bar"]] == pytest.approx(bar_m[2])
    assert FINGER_REACH_M == geometry.FINGER_REACH_M


def test_the_box_alone_lets_about_a_tenth_of_the_postures_into_the_table():
    """What the check is for, and a figure of docs/safety.md: 9 % with 6000 postures."""
    contract, rng = CONTRACTS["wx250s"], np.random.default_rng(0)
    table, model = TableClearance(contract), contract.arm
    clearances_m = np.array([point.clearance_m for point in table.points])
    lowest_m: list[float] = []
    while len(lowest_m) < 250:
        joints_rad = rng.uniform(model.lower_rad, model.upper_rad)
        place_m = forward_kinematics(model, joints_rad)[:3, 3]
        if (np.clip(place_m, contract.workspace_min_m, contract.workspace_max_m) == place_m).all():
            heights_m = table.spare_m(joints_rad) + clearances_m + table.table_m
            lowest_m.append(float(heights_m.min()))
    assert 0.04 < np.mean(np.array(lowest_m) < 0.0) < 0.15
