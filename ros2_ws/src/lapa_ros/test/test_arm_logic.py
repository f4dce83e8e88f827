# SPDX-License-Identifier: Apache-2.0
"""The arm holds whenever something is wrong, and says why once."""

import numpy as np
import pytest
from arm_tools import Commander
from lapa_ros.arm_backends import Measurement
from lapa_ros.arm_gate import CommandGate
from lapa_ros.arm_logic import ArmLogic, Mode

from lapa_core.errors import ActionError

PERIOD_S = 0.02


class FollowingArm:
    """Follows its targets with a lag, as servos do; its joint states can be cut, and it can be pushed."""

    def __init__(self, contract, clock):
        self.joints_rad, self.sent = np.array(contract.ready_joints_rad), []
        self._clock, self._stamp_s = clock, clock()
        self.connected = self.follows = True

    def send(self, joints_rad, gripper):
        self.sent.append(joints_rad.copy())
        if self.follows:
            self.joints_rad = self.joints_rad + 0.5 * (joints_rad - self.joints_rad)

    def measured(self):
        if self.connected:
            self._stamp_s = self._clock()
        return Measurement(self.joints_rad.copy(), 0.0, self._stamp_s)


class Bench:
    """An arm's logic with everything around it."""

    def __init__(self, contract, clock):
        self.clock, self.said = clock, []
        self.arm = FollowingArm(contract, clock)
        gate = CommandGate(contract, "policy", max_command_age_s=0.15)
        self.logic = ArmLogic(
            contract, self.arm, gate, lambda level, text: self.said.append(text), 1.2
        )
        self.make = Commander(contract, clock)
        self.run(0.1)

    def run(self, seconds):
        for _ in range(round(seconds / PERIOD_S)):
            self.clock.now_s += PERIOD_S
            self.logic.tick(self.clock())

    def command(self, **changes):
        return self.logic.command(self.make(**changes), self.clock())


@pytest.fixture
def bench(contract, clock):
    return Bench(contract, clock)


def test_good_commands_move_the_commanded_pose_once_each(bench):
    start_m = bench.logic.controller.target_44[:3, 3].copy()
    for _ in range(3):
        assert bench.command()
        bench.run(0.2)
    moved_m = bench.logic.controller.target_44[:3, 3] - start_m
    np.testing.assert_allclose(moved_m, [0.03, 0.0, 0.0], atol=1e-3)
    assert bench.logic.mode is Mode.TRACKING
    assert bench.logic.applied == 3
    assert bench.logic.latency_s == pytest.approx(0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"values": (np.nan, 0, 0, 0, 0, 0, 0)},
        {"values": (0.2, 0, 0, 0, 0, 0, 0)},
        {"stamp_s": 0.0},
        {"sequence": 1},
        {"contract_hash": "x"},
    ],
)
def test_a_refused_command_makes_a_tracking_arm_hold_where_it_is_measured(bench, changes):
    bench.command()
    bench.run(0.06)
    where_rad = bench.arm.joints_rad.copy()
    assert not bench.command(**changes)
    assert bench.logic.mode is Mode.HOLDING
    bench.run(0.4)
    np.testing.assert_allclose(bench.arm.joints_rad, where_rad, atol=1e-6)
    assert bench.logic.refused == 1
    assert bench.logic.last_refusal


def test_a_refusal_is_said_once_until_a_command_is_applied_again(bench):
    for _ in range(5):
        bench.command(values=(np.nan,) * 7)
    assert sum("command refused" in text for text in bench.said) == 1
    bench.command()
    bench.command(values=(np.nan,) * 7)
    assert sum("command refused" in text for text in bench.said) == 2


def test_a_refusal_while_tracking_is_one_line(bench):
    bench.command()
    bench.said.clear()
    bench.command(values=(np.nan,) * 7)
    assert len(bench.said) == 1
    assert bench.said[0].startswith("holding: command refused: ")
    bench.command(values=(np.nan,) * 7)
    assert len(bench.said) == 1


def test_counts_are_since_activation_but_no_delta_applies_twice(bench):
    bench.command()
    bench.command(values=(np.nan,) * 7)
    bench.logic.halt("deactivated")
    bench.logic.begin()
    bench.run(0.1)
    assert (bench.logic.applied, bench.logic.refused, bench.logic.last_refusal) == (0, 0, "")
    assert bench.logic.last.sequence == 1, "told on, so that a recording can go on from it"
    assert not bench.command(sequence=1)
    assert bench.command()
    assert (bench.logic.applied, bench.logic.refused) == (1, 1)


@pytest.mark.parametrize("step_s", [0.3, 900.0])
def test_when_the_clock_is_set_back_the_arm_holds_and_the_watchdog_still_works(
    bench, contract, step_s
):
    bench.command()
    bench.run(0.06)
    bench.clock.now_s -= step_s
    bench.run(0.02)
    where_rad = bench.arm.joints_rad.copy()
    assert bench.logic.mode is Mode.HOLDING
    bench.run(0.4)
    np.testing.assert_allclose(bench.arm.joints_rad, where_rad, atol=1e-6)
    assert sum("set back" in text for text in bench.said) == 1
    assert bench.command()
    bench.run(contract.watchdog_s + 0.1)
    assert bench.logic.mode is Mode.HOLDING


@pytest.mark.parametrize("mode", [Mode.STOPPED, Mode.PARKED])
def test_when_the_clock_is_set_back_a_stopped_or_parked_arm_stays_so(bench, mode):
    if mode is Mode.STOPPED:
        bench.logic.stop()
    else:
        bench.logic.park(bench.clock())
        bench.run(6.0)
    bench.clock.now_s -= 900.0
    bench.run(0.5)
    assert bench.logic.mode is mode


def test_a_foreign_source_is_refused_without_disturbing_the_arm(bench):
    bench.command()
    assert not bench.command(source="operator")
    assert bench.logic.mode is Mode.TRACKING


def test_the_watchdog_holds_the_measured_joints_once(bench, contract):
    bench.command()
    bench.run(contract.watchdog_s + 0.5)
    assert bench.logic.mode is Mode.HOLDING
    assert sum("watchdog" in text for text in bench.said) == 1


def test_missing_joint_states_hold_and_their_return_needs_a_new_command(bench, contract):
    bench.command()
    bench.arm.connected = False
    bench.run(contract.max_joint_state_age_s + 0.1)
    assert bench.logic.mode is Mode.WAITING
    assert not bench.command()
    bench.arm.connected = True
    bench.run(0.1)
    assert bench.logic.mode is Mode.HOLDING
    assert bench.command()


def test_stop_is_latched_until_cleared(bench):
    bench.command()
    bench.run(0.06)
    bench.logic.stop()
    where_rad = bench.arm.joints_rad.copy()
    for _ in range(3):
        assert not bench.command()
        bench.run(0.3)
    assert bench.logic.mode is Mode.STOPPED
    np.testing.assert_allclose(bench.arm.joints_rad, where_rad, atol=1e-6)
    for refused in (lambda: bench.logic.park(bench.clock()), bench.logic.hold):
        with pytest.raises(ActionError, match="clear"):
            refused()
    bench.logic.clear()
    assert bench.logic.mode is Mode.HOLDING
    assert bench.command()


def test_stop_survives_missing_joint_states(bench):
    bench.logic.stop()
    bench.arm.connected = False
    bench.run(1.0)
    bench.arm.connected = True
    bench.run(0.2)
    assert bench.logic.mode is Mode.STOPPED


def test_park_and_ready_reach_their_poses_below_the_speed_limit(bench, contract):
    for move, joints_rad, mode in (
        (bench.logic.park, contract.arm.sleep_rad, Mode.PARKED),
        (bench.logic.move_to_ready, np.array(contract.ready_joints_rad), Mode.HOLDING),
    ):
        bench.arm.sent.clear()
        move(bench.clock())
        assert not bench.command(), "commands are refused on the way"
        bench.run(6.0)
        assert bench.logic.mode is mode
        np.testing.assert_allclose(bench.arm.joints_rad, joints_rad, atol=1e-3)
        speed_rad_s = np.abs(np.diff(bench.arm.sent, axis=0)).max() / PERIOD_S
        assert speed_rad_s <= 1.2 * 1.01


@pytest.mark.parametrize("stall_s", [0.5, 60.0])
def test_a_node_that_stood_still_goes_on_with_its_move_where_it_was(bench, contract, stall_s):
    """Stopped by its machine, or a clock that was set forward; the first thing it hears then are new joint states."""
    bench.logic.park(bench.clock())
    bench.run(0.6)
    bench.clock.now_s += stall_s
    bench.run(6.0)
    assert bench.logic.mode is Mode.PARKED
    np.testing.assert_allclose(bench.arm.joints_rad, contract.arm.sleep_rad, atol=1e-3)
    step_rad = np.abs(np.diff(bench.arm.sent, axis=0)).max()
    assert step_rad <= 1.2 * 1.01 * (contract.max_joint_state_age_s + PERIOD_S)


def test_an_arm_that_is_moved_by_hand_is_anchored_where_it_is(bench):
    bench.arm.follows = False
    bench.arm.joints_rad = bench.arm.joints_rad + 0.2
    bench.run(0.6)
    assert any("do not follow" in text for text in bench.said)
    np.testing.assert_allclose(bench.arm.sent[-1], bench.arm.joints_rad, atol=1e-9)


def test_hold_anchors_the_target_at_the_measured_joints(bench):
    bench.command()
    bench.run(0.06)
    bench.logic.hold()
    np.testing.assert_allclose(bench.logic.controller.sample(bench.clock()), bench.arm.joints_rad)


def test_nothing_is_sent_before_joints_were_ever_measured(contract, clock):
    class Silent(FollowingArm):
        def measured(self):
            return None

    arm = Silent(contract, clock)
    logic = ArmLogic(contract, arm, CommandGate(contract, "policy", 0.15), lambda *_: None, 1.2)
    logic.tick(clock())
    assert arm.sent == []
    assert not logic.command(Commander(contract, clock)(), clock())
    with pytest.raises(ActionError, match="no joint states"):
        logic.park(clock())


def test_ready_does_not_move_the_gripper_of_a_stopped_arm(bench, contract):
    bench.logic.stop()
    bench.logic.controller.gripper = 1.0 - contract.ready_gripper
    with pytest.raises(ActionError, match="clear"):
        bench.logic.move_to_ready(bench.clock())
    assert bench.logic.controller.gripper == 1.0 - contract.ready_gripper


@pytest.mark.parametrize("skew_s", [-1.0, 1.0])
def test_an_arm_that_was_only_ever_measured_at_another_time_is_sent_nothing(
    contract, clock, skew_s
):
    arm = FollowingArm(contract, lambda: clock() + skew_s)
    arm.joints_rad = arm.joints_rad + 0.3
    logic = ArmLogic(contract, arm, CommandGate(contract, "policy", 0.15), lambda *_: None, 1.2)
    logic.tick(clock())
    assert logic.mode is Mode.WAITING
    assert arm.sent == []


def test_a_stop_before_the_first_joint_states_holds_where_the_arm_then_is(contract, clock):
    arm = FollowingArm(contract, clock)
    arm.joints_rad = arm.joints_rad + 0.3
    measured, arm.measured = arm.measured, lambda: None
    logic = ArmLogic(contract, arm, CommandGate(contract, "policy", 0.15), lambda *_: None, 1.2)
    logic.stop()
    arm.measured = measured
    logic.tick(clock())
    assert logic.mode is Mode.STOPPED
    np.testing.assert_allclose(arm.sent, [arm.joints_rad])


@pytest.mark.parametrize("stopped", [False, True])
def test_an_arm_that_comes_back_elsewhere_is_not_sent_where_it_was(bench, contract, stopped):
    if stopped:
        bench.logic.stop()
    bench.arm.connected = False
    bench.run(contract.max_joint_state_age_s + 0.1)
    bench.arm.sent.clear()
    bench.run(0.2)
    assert bench.arm.sent == []
    bench.arm.joints_rad = bench.arm.joints_rad + 0.3
    where_rad = bench.arm.joints_rad.copy()
    bench.arm.connected = True
    bench.run(0.2)
    np.testing.assert_allclose(bench.arm.joints_rad, where_rad, atol=1e-9)


def test_an_arm_that_nobody_watched_is_anchored_where_it_is(bench):
    bench.logic.halt("deactivated")
    where_rad = bench.arm.joints_rad = bench.arm.joints_rad + 0.1
    bench.logic.begin()
    bench.run(0.1)
    np.testing.assert_allclose(bench.arm.joints_rad, where_rad, atol=1e-9)
