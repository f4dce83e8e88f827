# SPDX-License-Identifier: Apache-2.0
"""The interbotix backend against fake motors: set-up, streaming, gripper, faults, and how fast each is noticed."""

from dataclasses import replace

import numpy as np
import pytest
from fake_rig import Rig
from lapa_ros.arm_logic import Mode
from lapa_ros.arm_sag import SagGuard
from lapa_ros.fake_driver.arm import SAG_RAD
from lapa_ros.interbotix_backend import describe_error

from lapa_core.errors import ActionError
from lapa_core.robot.contract import load_contract
from lapa_core.robot.kinematics import forward_kinematics


@pytest.fixture(params=["wx250s", "vx300s"])
def any_contract(request):
    return load_contract(request.param)


@pytest.fixture
def rig(clock):
    return Rig(load_contract("wx250s"), clock)


def test_the_set_up_writes_the_profile_once_and_never_cuts_the_arms_torque(any_contract, clock):
    rig = Rig(any_contract, clock)
    assert rig.logic.mode is Mode.HOLDING
    assert rig.arm.read(["waist"], "Profile_Velocity") == [25], "1.25 periods of 50 Hz"
    assert rig.arm.mode["gripper"] == "linear_position"
    asked = len([name for name, _ in rig.link.asked if name.startswith("set_")])
    rig.steps(10)
    assert len([name for name, _ in rig.link.asked if name.startswith("set_")]) == asked
    assert rig.arm.torque_cuts == 0


def test_commands_move_the_motors_where_they_say(any_contract, clock):
    rig = Rig(any_contract, clock)
    before_m = forward_kinematics(any_contract.arm, rig.joints_rad())[:3, 3]
    assert all(rig.steps(5))
    moved_m = forward_kinematics(any_contract.arm, rig.joints_rad())[:3, 3] - before_m
    np.testing.assert_allclose(moved_m, [0.05, 0.0, 0.0], atol=2e-3)
    assert all(motor.refusals == 0 for motor in rig.arm.motors.values())


def test_targets_are_streamed_at_the_command_rate_and_none_is_faster_than_a_joint(rig):
    rig.link.group.clear()
    rig.steps(5, x=0.05)
    assert len(rig.link.group) == 50 + 5, "and once with each delta"
    steps_rad = np.abs(np.diff(rig.link.group, axis=0))
    assert steps_rad.max() <= np.pi / rig.contract.command_rate_hz + 1e-9


def test_the_first_target_after_a_hold_is_one_tick_from_where_the_arm_is(clock):
    """Regression pinned: a target after a hold was not bounded; with a short `interpolation_s` it was a jump."""
    rig = Rig(replace(load_contract("wx250s"), interpolation_s=0.01), clock)
    rig.logic.hold(rig.clock())
    rig.run(0.01)
    assert rig.command(x=0.05)
    step_rad = np.abs(np.array(rig.link.group[-1]) - rig.joints_rad()).max()
    assert 0.0 < step_rad <= np.pi * 0.01 + 1e-9


def test_a_delta_between_two_ticks_is_answered_at_once_and_no_faster_than_a_joint(clock):
    rig = Rig(replace(load_contract("wx250s"), interpolation_s=0.01), clock)
    rig.steps(1)
    for _ in range(3):  # the second comes before the first one's motion is at its end
        rig.run(0.01)
        rig.link.group.clear()
        last_rad = rig.logic.sent_rad
        assert rig.command(x=0.05)
        assert len(rig.link.group) == 1
        step_rad = np.abs(np.array(rig.link.group[0]) - last_rad).max()
        assert 0.0 < step_rad <= np.pi * 0.01 + 1e-9
        rig.run(0.02)
        rig.run(0.4, until=lambda: len(rig.link.group) > 18)
    rig.link.group.clear()
    assert not rig.command(x=0.2)
    assert rig.link.group == [], (
        "a refusal is answered by the next tick: there may be a flood of them"
    )


def half_way_s(rig):
    """Return how long a delta takes to move the motors half of its way [s]."""
    rig.run(0.01)  # between two ticks
    before_m = forward_kinematics(rig.contract.arm, rig.joints_rad())[0, 3]
    assert rig.command(x=0.02)
    return rig.run(
        0.3,
        lambda: forward_kinematics(rig.contract.arm, rig.joints_rad())[0, 3] - before_m > 0.01,
    )


def test_motors_are_where_the_controller_wants_them_little_later(rig):
    """Half of the way takes half of `interpolation_s`, the bus's delay and the rest of a motor's profile; a target
    that is sent for the present instead of the next tick made it 20 ms more."""
    assert half_way_s(rig) <= rig.contract.interpolation_s / 2.0 + 0.03 + 1e-6


def test_nothing_is_sent_before_the_set_up_is_complete(clock):
    rig = Rig(load_contract("wx250s"), clock, settle_s=0.0)
    rig.link.there = False
    rig.run(5.0)
    assert (rig.logic.mode, rig.link.group, rig.link.gripper) == (Mode.WAITING, [], [])
    assert "is not there" in rig.logic.reason
    assert not rig.command()
    rig.link.there = True
    rig.run(2.0)
    assert rig.logic.mode is Mode.HOLDING


def another_model(rig):
    rig.link._model = load_contract("vx300s").arm


def no_robot_description(rig):
    """The driver then leaves the limits out."""
    full = rig.link._get_robot_info
    nothing = {"joint_lower_limits": [], "joint_upper_limits": []}
    rig.link._get_robot_info = lambda cmd_type, name: full(cmd_type, name) | nothing


def half_a_robot_description(rig):
    full = rig.link._get_robot_info
    rig.link._get_robot_info = lambda cmd_type, name: full(cmd_type, name) | {"joint_upper_limits": [1.0]}  # fmt: skip


def pwm_arm(rig):
    rig.arm.mode["waist"] = "pwm"


def limp(rig):
    rig.arm.inject("limp")


def overloaded(rig):
    rig.arm.inject("overload elbow")


def two_publishers(rig):
    rig.link.other = "2 nodes command the arm (/commands/joint_group); only one may"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (another_model, "is it another robot_model"),
        (no_robot_description, "knows no joint limits"),
        (half_a_robot_description, "knows no joint limits"),
        (pwm_arm, "the driver cuts the torque to do it"),
        (limp, "no torque on waist, shoulder"),
        (overloaded, "elbow: overload"),
        (two_publishers, "only one may"),
    ],
)
def test_an_arm_that_is_not_as_it_must_be_is_not_moved(clock, fault, words):
    rig = Rig(load_contract("wx250s"), clock, settle_s=0.0)
    fault(rig)
    took_s = rig.run(3.0, until=lambda: words in rig.logic.reason)
    print(f"{words!r} after {took_s:.2f} s")
    assert took_s < 0.5
    rig.run(3.0)
    assert rig.logic.mode is Mode.WAITING
    assert words in rig.logic.reason
    assert rig.link.group == []
    assert rig.arm.torque_cuts == 0


@pytest.mark.parametrize(
    ("fault", "words", "limit_s"),
    [
        ("overload elbow", "elbow: overload", 1.3),
        ("limp", "no torque on", 1.3),
        ("dead_bus", "cannot read", 1.6),
    ],
)
def test_a_fault_of_the_motors_stops_the_arm_and_is_latched(rig, fault, words, limit_s):
    rig.steps(3)
    rig.arm.inject(fault)

    def stopped():
        return rig.logic.mode is Mode.STOPPED

    took_s = 0.0
    while took_s < 5.0 and not stopped():
        rig.command()
        took_s += rig.run(0.2, until=stopped)
    assert took_s <= limit_s
    assert rig.run(2.0, until=lambda: words in rig.logic.reason) + took_s <= limit_s
    with pytest.raises(ActionError, match="stays stopped"):
        rig.logic.clear(rig.clock())
    rig.run(1.0)
    rig.arm.inject("mend")
    where_rad = rig.joints_rad()
    rig.link.group.clear()
    rig.run(3.0)
    np.testing.assert_allclose(rig.joints_rad(), where_rad, atol=5e-3)
    assert rig.logic.mode is Mode.STOPPED
    rig.logic.clear(rig.clock())
    rig.run(0.02)
    assert rig.command() or "~/ready" in rig.logic.last_refusal


@pytest.mark.parametrize(
    ("motor", "on", "words"),
    [
        ("waist", True, "Profile_Velocity of waist is no longer 25 ms"),
        ("gripper", True, "Profile_Velocity of gripper is no longer 300 ms"),
        ("elbow", False, "no torque on elbow, elbow_shadow"),
        ("elbow_shadow", True, "no torque on elbow_shadow"),
    ],
)
def test_a_motor_that_was_rebooted_stops_the_arm_and_is_set_up_anew(rig, motor, on, words):
    """It has forgotten its profile, and would go to every target as fast as it can."""
    rig.steps(3)
    rig.arm.reboot([motor], on=on, only_failed=False)
    took_s = rig.run(3.0, until=lambda: words in rig.logic.reason)
    assert took_s <= rig.backend.POLL_S + 0.3
    assert rig.logic.mode is Mode.STOPPED
    rig.arm.set_torque([motor], True)
    rig.run(3.0)
    assert rig.arm.read(["waist"], "Profile_Velocity") == [25]
    rig.logic.clear(rig.clock())
    rig.run(0.02)
    assert rig.command() or "~/ready" in rig.logic.last_refusal


def test_a_joint_is_not_left_to_one_of_its_two_motors(rig):
    """The driver leaves a shadow that it rebooted without torque, also when it is asked for it."""
    rig.arm.inject("overload elbow_shadow")
    rig.run(2.0, until=lambda: "elbow_shadow: overload" in rig.logic.reason)
    assert rig.logic.mode is Mode.STOPPED
    rig.arm.reboot(["elbow_shadow"], on=True, only_failed=False)
    rig.run(3.0)
    with pytest.raises(ActionError, match="no torque on elbow_shadow"):
        rig.logic.clear(rig.clock())
    rig.arm.set_torque(["elbow_shadow"], True)
    rig.run(3.0)
    rig.logic.clear(rig.clock())
    assert rig.arm.read(["elbow_shadow"], "Profile_Velocity") == [25]


def test_fingers_that_were_rebooted_get_their_profile_back(rig):
    """The driver goes on to say `linear_position`, which is what it set once."""
    rig.arm.reboot(["gripper"], on=False, only_failed=False)
    rig.run(2.0, until=lambda: rig.logic.mode is Mode.STOPPED)
    assert rig.arm.read(["gripper"], "Profile_Velocity") == [0]
    rig.arm.set_torque(["gripper"], True)
    rig.run(3.0)
    assert rig.arm.read(["gripper"], "Profile_Velocity") == [300]


@pytest.mark.parametrize("carried", [True, False])
def test_an_arm_that_sags_under_its_weight_does_not_sink_with_every_hold(rig, carried, monkeypatch):
    if not carried:
        monkeypatch.setattr(SagGuard, "hold", lambda _, measured_rad, stamp_s: measured_rad)
    rig.arm.inject("sag shoulder")
    rig.run(1.0)
    begun_rad = rig.joints_rad()
    for _ in range(10):
        assert rig.command(x=0.0)
        rig.run(1.5)  # the watchdog's hold, and a rest
        rig.logic.hold(rig.clock())
        rig.run(0.1)
    sunk_rad = rig.joints_rad()[1] - begun_rad[1]
    print(f"sunk by {sunk_rad:.3f} rad in 20 holds")
    if carried:
        assert abs(sunk_rad) < 0.005
    else:
        assert sunk_rad > 0.5, "the fake does sag"


@pytest.mark.parametrize("x_m", [0.02, -0.02])
def test_an_arm_that_sags_sinks_once_at_most_when_a_motion_is_stopped(rig, x_m):
    rig.arm.inject("sag shoulder")
    rig.run(1.0)
    for _ in range(5):
        rig.command(x=x_m)
        rig.run(0.1)
    before_rad = rig.joints_rad()
    for _ in range(10):
        rig.logic.stop()
        rig.run(0.2)
    np.testing.assert_allclose(rig.joints_rad(), before_rad, atol=SAG_RAD + 0.03)
    where_rad = rig.joints_rad()
    for _ in range(10):
        rig.logic.stop()
        rig.run(0.2)
    np.testing.assert_allclose(rig.joints_rad(), where_rad, atol=1e-3)


@pytest.mark.parametrize("pause_s", [0.14, 0.3, 0.8])
@pytest.mark.parametrize("sag_rad", [0.05, 0.12])
def test_a_load_that_comes_and_stays_is_sunk_under_once(rig, sag_rad, pause_s):
    """Regression pinned: what was learnt at an earlier rest, and was too little by now, was missing from each hold."""
    rig.steps(3, x=0.0)
    rig.arm.motors["shoulder"].sag = sag_rad
    rig.run(0.3)
    where_rad = rig.joints_rad()
    for number in range(20):
        rig.command(
            x=0.0 if number % 2 else 0.2
        )  # one that is applied, one that is refused and makes it hold
        rig.run(pause_s)
    assert rig.logic.refused >= 10
    np.testing.assert_allclose(rig.joints_rad(), where_rad, atol=abs(sag_rad) + 1e-3)


def test_an_arm_that_nobody_looked_at_and_that_did_not_move_is_where_it_was(rig):
    rig.arm.inject("sag shoulder")
    rig.run(1.0)
    where_rad = rig.joints_rad()
    for _ in range(5):
        rig.arm.silent = True
        rig.run(0.3)
        rig.arm.silent = False
        rig.run(1.0)
        rig.logic.halt("deactivated")
        rig.logic.begin()
        rig.run(1.0)
    np.testing.assert_allclose(rig.joints_rad(), where_rad, atol=1e-3)


@pytest.mark.parametrize("push_rad", [0.09, -0.09])
@pytest.mark.parametrize("pause_s", [0.1, 0.25, 1.0])
def test_holds_never_walk_an_arm_that_a_hand_has_pushed(rig, push_rad, pause_s):
    """Regression pinned: what a hand had held the shoulder up by was added anew with each stop, 1 rad in twelve."""
    shoulder = rig.arm.motors["shoulder"]
    rig.run(1.0)
    shoulder.sag = push_rad
    rig.run(0.7)
    shoulder.sag = 0.0
    rig.run(0.2)
    where_rad = rig.joints_rad()
    for _ in range(12):
        rig.logic.stop()
        rig.run(pause_s)
    np.testing.assert_allclose(rig.joints_rad(), where_rad, atol=5e-3)


def test_a_stop_ends_the_pressing_on_what_blocks_a_motion(rig):
    rig.steps(3)
    rig.arm.motors["shoulder"].stuck = True
    for number in range(10):
        down_m = -0.01 if number < 4 else 0.0
        rig.command(values=(0.0, 0.0, down_m, 0.0, 0.0, 0.0, 1.0))
        rig.run(0.2)
    assert rig.logic.mode is Mode.TRACKING
    assert np.abs(rig.logic.sent_rad - rig.joints_rad()).max() > 0.03, "it presses"
    rig.logic.stop()
    rig.run(0.1)
    np.testing.assert_allclose(rig.logic.sent_rad, rig.joints_rad(), atol=5e-3)


def test_a_move_of_an_arm_that_sags_begins_where_it_is(rig):
    rig.arm.inject("sag shoulder")
    rig.run(1.0)
    before_rad = rig.joints_rad()[1]
    rig.logic.park(rig.clock())  # upwards
    lowest_rad = before_rad
    for _ in range(50):
        rig.run(0.02)
        lowest_rad = max(lowest_rad, rig.joints_rad()[1])
    assert lowest_rad - before_rad < 0.005


def test_one_reading_that_fails_is_no_fault_and_two_are(rig):
    rig.run(1.1)  # until after a look at the motors
    rig.arm.dead_bus = True
    rig.run(5.0, until=lambda: rig.backend._misses)
    rig.arm.dead_bus = False
    rig.run(3.0)
    assert rig.logic.mode is Mode.HOLDING


def test_a_stuck_joint_stops_the_arm_where_it_is(rig):
    rig.steps(3)
    rig.arm.inject("stuck elbow")
    took_s = 0.0
    while took_s < 5.0 and "do not follow" not in rig.logic.reason:
        rig.command(x=0.03)
        took_s += rig.run(0.2, until=lambda: "do not follow" in rig.logic.reason)
    assert took_s < 1.6
    rig.run(0.3)
    assert np.abs(np.array(rig.link.group[-1]) - rig.joints_rad()).max() < 0.01
    assert rig.logic.mode is Mode.STOPPED, "what blocks it may be a hand: it does not push again"
    assert not rig.command()


def test_a_driver_that_goes_silent_is_held_for_set_up_anew_and_latched(rig):
    rig.steps(3)
    rig.command()
    rig.arm.inject("silent")
    took_s = rig.run(1.0, until=lambda: rig.logic.mode is Mode.WAITING)
    assert took_s <= rig.contract.max_joint_state_age_s + 0.03
    rig.run(1.0)
    assert rig.logic.mode is Mode.STOPPED
    assert "silent" in rig.logic.reason
    rig.link.group.clear()
    rig.arm.write(["waist"], "Profile_Velocity", 2000)  # a driver that was restarted has its own
    rig.arm.inject("mend")
    rig.run(3.0)
    assert rig.arm.read(["waist"], "Profile_Velocity") == [25]
    rig.logic.clear(rig.clock())
    rig.run(0.02)
    assert rig.command()


@pytest.mark.parametrize("under_way", [False, True])
def test_a_driver_that_was_silent_while_nobody_polled_is_set_up_anew(clock, under_way):
    """Regression pinned: one that was started again while the arm node was inactive got targets at once."""
    rig = Rig(load_contract("wx250s"), clock, settle_s=0.06 if under_way else 1.0)
    assert bool(rig.link.group) is not under_way
    rig.logic.halt("deactivated")
    clock.now_s += 5.0  # the driver is started again, with a profile and a mode of its own
    rig.arm.write(["waist"], "Profile_Velocity", 2000)
    rig.arm.profile_type["waist"] = "velocity"
    rig.link.group.clear()
    for _ in range(100):
        clock.now_s += 0.01
        rig.backend.receive(*rig.arm.joint_states(), clock())
    rig.logic.begin()
    rig.run(3.0)
    assert rig.link.group == []
    assert "profile 'velocity'" in rig.logic.reason
    rig.arm.profile_type["waist"] = "time"
    rig.run(3.0)
    assert rig.arm.read(["waist"], "Profile_Velocity") == [25]
    assert rig.link.group


def test_a_driver_that_does_not_answer_stops_the_arm(rig):
    rig.link.hangs = True
    took_s = rig.run(10.0, until=lambda: rig.logic.mode is Mode.STOPPED)
    assert took_s <= rig.backend.POLL_S + rig.backend.ANSWER_S + 0.1
    assert "does not answer" in rig.logic.reason
    assert rig.link.cancelled == 1, "or rclpy keeps the request for ever"


def test_joint_states_that_jump_are_refused(rig):
    names, positions = rig.arm.joint_states()
    positions[2] += 0.5
    with pytest.raises(ActionError, match="jumped"):
        rig.backend.receive(names, positions, rig.clock() + 0.01)


@pytest.mark.parametrize("jump_rad", [0.3, 0.5, 3.0])
@pytest.mark.parametrize("moves", [False, True])
def test_joint_states_that_jump_for_good_are_not_followed_before_a_person_says_so(
    rig, moves, jump_rad
):
    """Regression pinned: what a joint may do in the time since the last good ones grew until the jump was believed."""
    if moves:
        rig.steps(2)
        rig.command()
    waist = rig.arm.motors["waist"]
    waist.stuck, where_rad = True, waist.position
    waist.position += jump_rad
    rig.link.group.clear()
    took_s = rig.run(1.0, until=lambda: rig.logic.mode is Mode.WAITING)
    assert took_s <= rig.contract.max_joint_state_age_s + 0.03
    assert all(abs(target_rad[0] - where_rad) < 0.01 for target_rad in rig.link.group)
    rig.run(3.0)
    assert rig.logic.mode is Mode.STOPPED
    rig.logic.clear(rig.clock())
    rig.run(0.1)
    assert rig.logic.mode is Mode.HOLDING
    assert rig.link.group[-1][0] == pytest.approx(waist.position), "where the arm is by now"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda names, positions: (names, positions[:-1]),
        lambda names, positions: (names[:-2], positions[:-2]),
        lambda names, positions: ([*names, names[0]], [*positions, positions[0]]),
        lambda names, positions: (names, [float("nan")] * len(positions)),
    ],
    ids=["one position too few", "no fingers", "a joint twice", "nan"],
)
def test_joint_states_that_cannot_be_used_count_as_silence(rig, spoil):
    """The driver talks on, but says nothing: the arm is no better known than with a dead one."""
    for _ in range(round(1.0 / 0.01)):
        rig.clock.now_s += 0.01
        names, positions = rig.arm.joint_states()
        with pytest.raises(ActionError):
            rig.backend.receive(*spoil(list(names), list(positions)), rig.clock())
        rig.backend.poll()
        rig.logic.tick(rig.clock())
    assert rig.logic.mode is Mode.STOPPED
    assert "silent" in rig.logic.reason or "silent" in rig.backend.trouble()
    assert np.isfinite(rig.backend._gap_m), "the fingers are where they were seen last"


@pytest.mark.parametrize("guarded", [True, False])
def test_an_object_in_the_fingers_does_not_overload_the_gripper(rig, guarded, monkeypatch):
    if not guarded:
        monkeypatch.setattr(rig.backend._guard, "gap_m", lambda wanted_m, *_: wanted_m)
    rig.arm.inject("object 0.05")
    rig.gripper = 0.0
    rig.steps(20, x=0.0)
    status = rig.arm.read(["gripper"], "Hardware_Error_Status")[0]
    if not guarded:
        assert describe_error(status) == "overload", "the fake does overload"
        return
    assert status == 0
    assert rig.arm.fingers.position == pytest.approx(0.05)
    assert 0.045 < rig.link.gripper[-1] < 0.05
    rig.gripper = 1.0
    rig.steps(3, x=0.0)
    assert rig.arm.fingers.position == pytest.approx(0.074, abs=1e-3)


def test_the_gripper_is_sent_only_what_is_new(rig):
    rig.link.gripper.clear()
    rig.steps(10, x=0.0)
    assert len(rig.link.gripper) <= 1


def test_the_torque_of_a_parked_arm_is_cut_on_the_second_request_and_its_return_is_waited_for(rig):
    rig.logic.park(rig.clock())
    rig.run(6.0)
    assert rig.logic.mode is Mode.PARKED
    rig.logic.release(rig.clock())
    rig.run(0.5)
    assert rig.arm.torque_cuts == 0
    rig.logic.release(rig.clock())
    assert rig.arm.torque_cuts == 1
    rig.link.group.clear()
    rig.run(3.0)
    assert rig.link.group == []
    with pytest.raises(ActionError):
        rig.logic.move_to_ready(rig.clock())
    rig.arm.set_torque(rig.arm.names("group", "all"), True)
    rig.run(3.0)
    rig.logic.clear(rig.clock())
    rig.logic.move_to_ready(rig.clock())
    rig.run(6.0)
    assert rig.logic.mode is Mode.HOLDING
    np.testing.assert_allclose(rig.joints_rad(), rig.contract.ready_joints_rad, atol=5e-3)


def test_the_error_bits_have_names():
    assert describe_error(0b100100) == "overheating and overload"
    assert describe_error(0b10) == "error status 2"
