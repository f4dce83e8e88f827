# SPDX-License-Identifier: Apache-2.0
"""The arm holds whenever something is wrong, and says why once."""

import numpy as np
import pytest
from arm_tools import Commander, make_logic
from lapa_ros.arm_backends import Measurement, NoMotors
from lapa_ros.arm_logic import ArmLogic, Mode

from lapa_core.errors import ActionError
from lapa_core.robot.kinematics import forward_kinematics

PERIOD_S = 0.02


class FollowingArm(NoMotors):
    """Follows its targets with a lag, as servos do; its joint states can be cut, and it can be pushed."""

    def __init__(self, contract, clock):
        self.joints_rad, self.sent = np.array(contract.ready_joints_rad), []
        self._clock, self._stamp_s = clock, clock()
        self.connected = self.follows = True
        self.gripper, self.opened = 0.0, []
        self.speed_limit_rad_s = np.inf

    def send(self, joints_rad, gripper):
        self.sent.append(joints_rad.copy())
        self.opened.append(gripper)
        if self.follows:
            self.joints_rad = self.joints_rad + 0.5 * (joints_rad - self.joints_rad)

    def measured(self):
        if self.connected:
            self._stamp_s = self._clock()
        return Measurement(self.joints_rad.copy(), self.gripper, self._stamp_s)


class Bench:
    """An arm's logic with everything around it."""

    def __init__(self, contract, clock):
        self.clock, self.said = clock, []
        self.arm = FollowingArm(contract, clock)
        self.logic = make_logic(contract, self.arm, lambda level, text: self.said.append(text))
        self.make = Commander(contract, clock)
        self.run(0.1)

    def run(self, seconds):
        for _ in range(round(seconds / PERIOD_S)):
            self.clock.now_s += PERIOD_S
            self.logic.tick(self.clock())

    def command(self, **changes):
        return self.logic.command(self.make(**changes), self.clock())

    def step(self, **changes):
        """Command, and let a control period pass."""
        applied = self.command(**changes)
        self.run(0.2)
        return applied


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
    assert not bench.command(sequence=1, stamp_s=bench.logic.last.stamp_s)
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
    assert not bench.command(source="stranger")
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
    for refused in (bench.logic.park, bench.logic.hold):
        with pytest.raises(ActionError, match="clear"):
            refused(bench.clock())
    bench.logic.clear(bench.clock())
    assert bench.logic.mode is Mode.HOLDING
    bench.run(0.02)
    assert bench.command()


def _stop_and_clear(bench):
    bench.logic.stop()
    bench.logic.clear(bench.clock())


def _hold(bench):
    bench.logic.hold(bench.clock())


def _move_to_ready(bench):
    bench.logic.move_to_ready(bench.clock())
    while bench.logic.mode is not Mode.HOLDING:
        bench.run(0.02)


def _lose_the_joint_states(bench):
    bench.arm.connected = False
    bench.run(bench.logic.contract.max_joint_state_age_s + 0.02)
    bench.arm.connected = True
    bench.run(0.02)


def _deactivate_and_activate(bench):
    bench.logic.halt("deactivated")
    bench.logic.begin()
    bench.run(0.02)


@pytest.mark.parametrize(
    "interrupt",
    [_stop_and_clear, _hold, _move_to_ready, _lose_the_joint_states, _deactivate_and_activate],
)
def test_what_was_made_or_seen_before_an_interruption_does_not_move_the_arm_after_it(
    bench, interrupt
):
    """Regression pinned: a delta or a thought on its way undid a hold, or a stop that was cleared at once."""
    bench.step()
    bench.run(0.4)
    begun_s = bench.clock()
    bench.clock.now_s += 0.01
    interrupt(bench)
    target_44 = bench.logic.controller.target_44.copy()
    for changes in ({"stamp_s": begun_s, "observation_s": None}, {"observation_s": begun_s}):
        assert not bench.command(**changes)
        assert "stale" in bench.logic.last_refusal
    assert "from before the arm obeyed again" in bench.logic.last_refusal
    bench.run(0.3)
    np.testing.assert_allclose(bench.logic.controller.target_44, target_44, atol=1e-9)
    assert bench.command(), "of one that was made and seen since"


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


@pytest.mark.parametrize("move", [ArmLogic.park, ArmLogic.move_to_ready])
def test_a_move_that_would_bring_the_gripper_into_the_table_is_refused(bench, move):
    bench.arm.joints_rad = np.array([0.0, 0.3, 1.5, 0.0, 1.7, 2.7])
    bench.logic.hold(bench.clock())  # folded under, the wrist turned
    bench.run(0.1)
    mode, opening, sent_rad = bench.logic.mode, bench.logic.controller.gripper, bench.logic.sent_rad
    with pytest.raises(ActionError, match=r"gripper's bar would come down to z = .* mm; allowed"):
        move(bench.logic, bench.clock())
    bench.run(1.0)
    assert bench.logic.mode is mode is Mode.HOLDING
    assert bench.logic.controller.gripper == opening
    np.testing.assert_allclose(bench.logic.sent_rad, sent_rad, atol=1e-6)


def test_a_delta_that_would_bring_a_part_of_the_arm_into_the_table_is_refused(bench):
    """Regression pinned: the box bounds the end-effector point, about which the rest of the arm turns."""
    turn = {"values": (0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0)}
    steps = [bench.step(**turn) for _ in range(6)]
    assert steps[0]
    assert not steps[-1]
    assert "would come down" in bench.logic.last_refusal
    assert bench.logic.mode is Mode.HOLDING


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


@pytest.mark.parametrize("ticks_first", [False, True])
def test_what_may_have_been_asked_of_a_node_that_stood_still_is_refused_for_a_moment(
    bench, ticks_first
):
    bench.clock.now_s += 0.9 * ArmLogic.STANDSTILL_S
    bench.logic.check_fresh(bench.clock())  # only slow
    bench.run(1.0)
    bench.clock.now_s += 1.1 * ArmLogic.STANDSTILL_S
    if ticks_first:
        bench.run(0.5 * ArmLogic.LATE_S)
    with pytest.raises(ActionError, match="ask again"):
        bench.logic.check_fresh(bench.clock())
    bench.run(1.1 * ArmLogic.LATE_S)
    bench.logic.check_fresh(bench.clock())


def test_an_arm_that_is_activated_again_did_not_stand_still(bench):
    bench.logic.halt("the arm node is deactivated")
    bench.clock.now_s += 60.0
    bench.logic.begin()
    bench.logic.check_fresh(bench.clock())
    bench.run(0.1)
    bench.logic.check_fresh(bench.clock())


def test_an_arm_that_is_moved_by_hand_is_anchored_where_it_is(bench):
    bench.arm.follows = False
    bench.arm.joints_rad = bench.arm.joints_rad + 0.2
    bench.run(0.6)
    assert any("do not follow" in text for text in bench.said)
    np.testing.assert_allclose(bench.arm.sent[-1], bench.arm.joints_rad, atol=1e-9)


def test_hold_anchors_the_target_at_the_measured_joints(bench):
    bench.command()
    bench.run(0.06)
    bench.logic.hold(bench.clock())
    np.testing.assert_allclose(bench.logic.controller.sample(bench.clock()), bench.arm.joints_rad)


def test_nothing_is_sent_before_joints_were_ever_measured(contract, clock):
    class Silent(FollowingArm):
        def measured(self):
            return None

    arm = Silent(contract, clock)
    logic = make_logic(contract, arm)
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
    logic = make_logic(contract, arm)
    logic.tick(clock())
    assert logic.mode is Mode.WAITING
    assert arm.sent == []


def test_a_stop_before_the_first_joint_states_holds_where_the_arm_then_is(contract, clock):
    arm = FollowingArm(contract, clock)
    arm.joints_rad = arm.joints_rad + 0.3
    measured, arm.measured = arm.measured, lambda: None
    logic = make_logic(contract, arm)
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


def test_a_policy_that_goes_on_trying_is_refused_aloud_once_per_takeover(bench):
    operator = Commander(bench.logic.contract, bench.clock, "operator")
    for takeover in (1, 2):
        bench.step()
        for _ in range(4):
            bench.logic.command(operator(), bench.clock())
            bench.step()
        assert sum("operator has the arm" in text for text in bench.said) == takeover
        bench.run(1.5)


def test_a_person_takes_the_arm_where_it_is_measured_and_keeps_it(bench):
    bench.step()
    bench.command()
    bench.run(0.04)  # in the middle of the policy's motion
    where_m = forward_kinematics(bench.logic.contract.arm, bench.arm.joints_rad)[:3, 3]
    operator = Commander(bench.logic.contract, bench.clock, "operator")
    upwards = operator(values=(0, 0, 0.01, 0, 0, 0, 0))
    assert bench.logic.command(upwards, bench.clock())
    moved_m = bench.logic.controller.target_44[:3, 3] - where_m
    np.testing.assert_allclose(moved_m, [0.0, 0.0, 0.01], atol=1e-3)
    for _ in range(4):
        bench.run(0.2)
        assert not bench.command()
        assert bench.logic.last_refusal == "operator has the arm; 'policy' is refused"
    bench.run(0.3)
    assert bench.command(), "a second after the person's last command"
    assert bench.logic.source == "policy"


def test_bad_data_from_a_source_that_has_not_the_arm_does_not_disturb_the_one_that_has(bench):
    bench.command(source="operator")
    assert not bench.command(values=(np.nan,) * 7)
    assert bench.logic.mode is Mode.TRACKING


def test_bad_data_from_a_higher_source_makes_the_arm_hold(bench):
    bench.command()
    assert not bench.command(source="operator", values=(np.nan,) * 7)
    assert bench.logic.mode is Mode.HOLDING


def test_a_delta_before_the_first_measured_tick_of_an_activation_is_refused(bench):
    """Regression pinned: it was counted as applied, and that tick then anchored the target anew."""
    bench.logic.halt("deactivated")
    bench.logic.begin()
    assert not bench.command()
    assert "not measured yet" in bench.logic.last_refusal
    bench.run(0.04)
    assert bench.command()


@pytest.mark.parametrize("mode", [Mode.HOLDING, Mode.PARKED])
def test_no_move_starts_from_where_the_arm_was_before_an_activation(bench, mode):
    """Regression pinned: a service between activation and first tick started a move from the old joints."""
    if mode is Mode.PARKED:
        bench.logic.park(bench.clock())
        bench.run(6.0)
    bench.logic.halt("deactivated")
    bench.arm.joints_rad = bench.arm.joints_rad + 0.3
    bench.logic.begin()
    with pytest.raises(ActionError, match="cannot move"):
        bench.logic.move_to_ready(bench.clock())


def test_an_arm_that_has_not_reached_the_sleep_pose_is_not_parked(bench, contract):
    """Regression pinned: PARKED, the only mode in which torque may be cut, was entered by the clock alone."""
    bench.logic.park(bench.clock())
    bench.run(1.5)
    off_rad = np.array([0.0, 0.12, 0.0, 0.0, 0.0, 0.0])
    bench.arm.follows = False
    for _ in range(300):
        bench.arm.joints_rad = (
            bench.logic.sent_rad + off_rad
        )  # dragged along, below what counts as astray
        bench.run(PERIOD_S)
    assert bench.logic.mode is Mode.HOLDING
    assert bench.logic.reason == "shoulder has not arrived: 0.12 rad off"


def test_a_stop_ends_what_the_gripper_does_and_a_hold_keeps_a_grasp(bench):
    """Regression pinned: a gripper went on closing after ~/stop."""
    bench.arm.gripper = 0.7  # on its way
    bench.command(values=(0, 0, 0, 0, 0, 0, 0.0))
    bench.logic.hold(bench.clock())
    bench.run(0.02)
    assert bench.arm.opened[-1] == 0.0
    bench.logic.stop()
    bench.run(0.02)
    assert bench.arm.opened[-1] == 0.7


def test_the_first_command_of_the_gripper_is_where_it_was_measured(contract, clock):
    """Regression pinned: an arm that was activated opened its gripper to that of the ready pose."""
    arm = FollowingArm(contract, clock)
    arm.gripper = 0.4
    logic = make_logic(contract, arm)
    logic.tick(clock())
    assert arm.opened == [0.4]


@pytest.mark.parametrize("joints_rad", ["sleep", (0, -1.3, 0.9, 0, 0.4, 0)])
def test_no_command_starts_a_motion_from_near_singular_or_far_outside_the_box(
    bench, contract, joints_rad
):
    """Regression pinned: a policy could set out from the sleep pose, or bring the arm back in steps of its own."""
    if joints_rad == "sleep":
        joints_rad = contract.arm.sleep_rad
    bench.arm.joints_rad = np.array(joints_rad, dtype=float)
    bench.logic.hold(bench.clock())
    bench.run(0.02)
    assert not bench.command()
    assert "call ~/ready first" in bench.logic.last_refusal
    bench.logic.move_to_ready(bench.clock())
    bench.run(6.0)
    assert bench.command()


@pytest.mark.parametrize("stall_s", [0.0, 0.08, 0.15])
def test_no_step_of_a_real_arm_is_faster_than_its_joints(contract, clock, stall_s):
    """Regression pinned: caps are per delta; their interpolation, or a node that stood still, asked for more."""
    bench = Bench(contract, clock)
    bench.arm.speed_limit_rad_s = np.pi
    bench.arm.sent.clear()
    for sign in (1, -1, 1):
        bench.command(values=(0, 0.049 * sign, 0, 0, 0, 0.24 * sign, 0))
        bench.run(0.02)
        clock.now_s += stall_s
        bench.run(0.2)
    steps_rad = np.abs(np.diff(bench.arm.sent, axis=0))
    assert steps_rad.max() <= np.pi * PERIOD_S + 1e-9
    assert steps_rad.max() > 0.9 * np.pi * PERIOD_S, "the limit was reached"


class FaultyArm(FollowingArm):
    """An arm whose motors can have a fault, and let go."""

    fault = ""
    limp = False

    def trouble(self):
        return self.fault

    def cut_torque(self):
        self.limp, self.fault = True, "no torque"


@pytest.fixture
def motors(bench):
    bench.arm.__class__ = FaultyArm
    return bench.arm


def test_a_motor_fault_stops_the_arm_until_it_is_mended_and_a_person_clears_it(bench, motors):
    bench.command()
    bench.run(0.04)
    motors.fault = "elbow: overload"
    motors.sent.clear()
    bench.run(1.0)
    assert bench.logic.mode is Mode.STOPPED
    assert "elbow: overload" in bench.logic.reason
    assert len(motors.sent) == 1, (
        "the measured joints, once: a motor that restarts must not be sent anywhere"
    )
    with pytest.raises(ActionError, match="stays stopped: elbow: overload"):
        bench.logic.clear(bench.clock())
    motors.joints_rad = motors.joints_rad - 0.2  # it sank
    where_rad = motors.joints_rad.copy()
    motors.fault = ""
    bench.run(0.2)
    assert bench.logic.mode is Mode.STOPPED
    np.testing.assert_allclose(motors.sent[-1], where_rad)
    bench.logic.clear(bench.clock())
    assert bench.logic.mode is Mode.HOLDING


def test_an_arm_that_is_not_set_up_yet_is_waited_for_and_not_latched(contract, clock):
    arm = FaultyArm(contract, clock)
    arm.fault = "the driver is not there"
    logic = make_logic(contract, arm)
    logic.tick(clock())
    assert (logic.mode, logic.reason, arm.sent) == (Mode.WAITING, "the driver is not there", [])
    arm.fault = ""
    logic.tick(clock())
    assert logic.mode is Mode.HOLDING


def test_torque_is_cut_only_of_a_parked_arm_and_only_when_asked_twice(bench, motors):
    with pytest.raises(ActionError, match="call ~/park first"):
        bench.logic.release(bench.clock())
    bench.logic.park(bench.clock())
    bench.run(6.0)
    for pause_s in (ArmLogic.CONFIRM_S + 1.0, 1.0):
        assert "call again" in bench.logic.release(bench.clock())
        assert not motors.limp
        bench.run(pause_s)
    bench.logic.release(bench.clock())
    assert motors.limp
    motors.sent.clear()
    bench.run(1.0)
    assert motors.sent == []


def test_a_request_to_cut_the_torque_does_not_outlive_the_pose_that_it_was_made_in(bench, motors):
    """Regression pinned: after a stop and another park within 10 s, the first request to cut the torque cut it."""
    bench.logic.park(bench.clock())
    bench.run(6.0)
    bench.logic.release(bench.clock())
    bench.logic.stop()
    bench.logic.clear(bench.clock())
    bench.logic.park(bench.clock())
    bench.run(2.0)
    assert bench.logic.mode is Mode.PARKED
    assert "call again" in bench.logic.release(bench.clock())
    assert not motors.limp


def test_torque_is_not_cut_of_a_parked_arm_that_was_lifted_since(bench, motors):
    bench.logic.park(bench.clock())
    bench.run(6.0)
    bench.logic.release(bench.clock())
    motors.joints_rad = motors.joints_rad + 0.14
    with pytest.raises(ActionError, match=r"0\.14 rad from the sleep pose"):
        bench.logic.release(bench.clock())
    assert not motors.limp


def test_an_arm_without_motors_has_no_torque_to_cut(bench):
    bench.logic.park(bench.clock())
    bench.run(6.0)
    bench.logic.release(bench.clock())
    with pytest.raises(ActionError, match="no torque to cut"):
        bench.logic.release(bench.clock())
