# SPDX-License-Identifier: Apache-2.0
"""The follower makes the leader's motion, within the caps, from where each of them was when the switch was closed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lapa_ros.arm_report import ArmReport
from lapa_ros.teleop_controls import Controls
from lapa_ros.teleop_leader import LeaderMotion
from lapa_ros.teleop_logic import ArmSeen, shortened

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.actions.pose import apply_delta
from lapa_core.errors import ActionError
from lapa_core.robot.contract import load_contract
from lapa_core.robot.kinematics import forward_kinematics, solve_ik

CONTRACT = load_contract("wx250s_sim")
ARM = CONTRACT.arm
READY = np.array(CONTRACT.ready_joints_rad)
HELD = Controls(motion=(0.0,) * 6, pressed=frozenset({"hold"}), stamp_s=0.0)


def seen(gripper=0.0):
    report = ArmReport(received_s=0.0, obeys=True, reason="", contract_hash=CONTRACT.hash)
    return ArmSeen(report=report, gripper=gripper, tool_33=np.eye(3))


class Leader:
    def __init__(self, scale=1.0):
        self.motion = LeaderMotion(ARM, scale, max_age_s=0.25)
        self.now_s = 10.0

    def at(self, joints_rad, opening=0.0):
        """Say where the leader is, as Interbotix's driver does."""
        self.now_s += 0.2
        low_m, high_m = ARM.finger_gap_m
        finger_m = (low_m + opening * (high_m - low_m)) / 2
        names = ["left_finger", "gripper", *reversed(ARM.joint_names)]
        self.motion.receive(names, [finger_m, 0.7, *reversed(list(joints_rad))], self.now_s)
        return self

    def begin(self, gripper=0.0):
        self.motion.begin(seen(gripper), self.now_s)
        return self

    def step(self, gripper=0.0):
        step = self.motion.step(HELD, seen(gripper), self.now_s)
        delta = EndEffectorDelta(
            shortened(step.translation_m, CONTRACT.max_translation_m),
            shortened(step.rotation_rad, CONTRACT.max_rotation_rad),
            step.gripper or 0.0,
        )
        self.motion.sent(delta)
        return step, delta


def moved(x_m=0.0, y_m=0.0, z_m=0.0, turn=(0.0, 0.0, 0.0)):
    pose_44 = apply_delta(
        forward_kinematics(ARM, READY),
        EndEffectorDelta(np.array([x_m, y_m, z_m]), np.array(turn), 0.0),
    )
    solution = solve_ik(ARM, pose_44, READY)
    assert solution.reached
    return solution.joints_rad


@settings(max_examples=25, deadline=None)
@given(way=st.tuples(*[st.floats(-0.06, 0.06)] * 3), turn=st.tuples(*[st.floats(-0.3, 0.3)] * 3))
def test_whatever_the_leader_did_the_follower_has_done_in_the_end(way, turn):
    leader = Leader().at(READY).begin().at(moved(*way, turn=turn))
    start_44 = forward_kinematics(ARM, np.array([0.3, -0.2, 0.9, 0.0, 0.9, 0.1]))  # elsewhere
    follower_44 = start_44.copy()
    for _ in range(6):
        _, delta = leader.step()
        assert np.linalg.norm(delta.translation_m) <= CONTRACT.max_translation_m + 1e-9
        assert np.linalg.norm(delta.rotation_rad) <= CONTRACT.max_rotation_rad + 1e-9
        follower_44 = apply_delta(follower_44, delta)
    wanted_44 = apply_delta(start_44, EndEffectorDelta(np.array(way), np.array(turn), 0.0))
    assert follower_44 == pytest.approx(wanted_44, abs=3e-3)  # the inverse kinematics' tolerance


def test_closing_the_switch_moves_nothing_by_itself():
    step, _ = Leader().at(moved(0.05, 0.05)).begin().step()
    assert np.abs(step.translation_m).max() < 1e-9
    assert np.abs(step.rotation_rad).max() < 1e-9


def test_the_scale_is_of_translations():
    step, _ = Leader(scale=0.5).at(READY).begin().at(moved(0.04, turn=(0.0, 0.0, 0.1))).step()
    assert step.translation_m[0] == pytest.approx(0.02, abs=3e-4)
    assert step.rotation_rad[2] == pytest.approx(0.1, abs=3e-3)


def test_a_leader_that_runs_ahead_ends_the_motion():
    leader = Leader().at(READY).begin().at(moved(0.0, 0.0, 0.17))
    with pytest.raises(ActionError, match=r"0\.17 m and .* ahead; allowed are 0\.15 m"):
        leader.step()


def test_the_gripper_follows_once_the_leader_has_picked_it_up():
    leader = Leader().at(READY, opening=0.0).begin(gripper=1.0)
    assert leader.step(gripper=1.0)[0].gripper is None, "an object would be dropped or crushed"
    assert leader.at(READY, opening=0.95).step(gripper=1.0)[0].gripper == pytest.approx(0.95)
    assert leader.at(READY, opening=0.3).step(gripper=0.95)[0].gripper == pytest.approx(0.3)


def test_old_joint_states_end_the_motion():
    leader = Leader().at(READY).begin()
    leader.now_s += 0.3
    with pytest.raises(ActionError, match=r"0\.30 s old"):
        leader.step()


def test_without_a_leader_nothing_begins():
    with pytest.raises(ActionError, match="no joint states of the leader"):
        Leader().begin()


@pytest.mark.parametrize(
    ("names", "positions", "words"),
    [
        (["waist"], [0.0], "lack"),
        ([*ARM.joint_names, "left_finger"], [0.0] * 6 + [float("nan")], "not finite"),
        ([*ARM.joint_names, "left_finger"], [0.0] * 6, "7 names and 6 positions"),
    ],
)
def test_unusable_joint_states_are_refused_and_the_last_good_ones_stay(names, positions, words):
    leader = Leader().at(READY)
    with pytest.raises(ActionError, match=words):
        leader.motion.receive(names, positions, leader.now_s)
    leader.begin()


def test_late_joint_states_change_nothing():
    leader = Leader().at(READY).begin()
    names = [*ARM.joint_names, "gripper"]
    leader.motion.receive(names, [*moved(0.05), 0.03], leader.now_s - 0.1)
    assert np.abs(leader.step()[0].translation_m).max() < 1e-9
