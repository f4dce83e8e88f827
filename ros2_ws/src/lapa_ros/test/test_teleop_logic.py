# SPDX-License-Identifier: Apache-2.0
"""Hold-to-run: when a delta goes out, what is in it, and everything that ends it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lapa_ros.arm_report import ArmReport
from lapa_ros.teleop_controls import MOTIONS, OWN_AXES, OWN_BUTTONS, ControlMap, Controls
from lapa_ros.teleop_logic import ArmSeen, RateMotion, Speeds, Teleop

from lapa_core.errors import ActionError, ContractError
from lapa_core.robot.contract import load_contract

CONTRACT = load_contract("wx250s_sim")
PERIOD_S = 1.0 / CONTRACT.control_rate_hz
TICK_S = 1.0 / CONTRACT.command_rate_hz
TIMEOUT_S = 0.25


class Bench:
    """A teleoperation with a device and an arm that say something before every tick, unless told otherwise."""

    def __init__(self, **speeds):
        options = {
            "linear_m_s": 0.1,
            "angular_rad_s": 0.5,
            "slow_factor": 0.3,
            "in_tool_frame": False,
        }
        self.said: list[str] = []
        motion = RateMotion(Speeds(**{**options, **speeds}), PERIOD_S)
        self.teleop = Teleop(CONTRACT, motion, TIMEOUT_S, lambda _, text: self.said.append(text))
        self.now_s = 1000.0
        self.gripper, self.tool_33 = 0.0, np.eye(3)
        self.arm = {"obeys": True, "reason": "", "contract_hash": CONTRACT.hash}
        self.sent, self.sent_s = [], []

    def tick(self, *pressed, motion=(), silent=False, arm_silent=False, stamp_s=None):
        """Let one command period pass; return the verbs of the reading."""
        self.now_s += TICK_S
        if not arm_silent:
            report = ArmReport(received_s=self.now_s, **self.arm)
            self.teleop.hear_arm(ArmSeen(report=report, gripper=self.gripper, tool_33=self.tool_33))
        verbs = []
        if not silent:
            controls = Controls(
                motion=(*motion, *[0.0] * (6 - len(motion))), pressed=frozenset(pressed),
                stamp_s=self.now_s if stamp_s is None else stamp_s,
            )  # fmt: skip
            verbs = self.teleop.receive(controls, self.now_s)
        if (delta := self.teleop.step(self.now_s)) is not None:
            self.sent.append(delta)
            self.sent_s.append(self.now_s)
        return verbs

    def run(self, seconds, *pressed, **how):
        for _ in range(round(seconds / TICK_S)):
            self.tick(*pressed, **how)


@pytest.fixture
def bench():
    bench = Bench()
    bench.tick()  # the switch was seen open
    return bench


def test_a_held_switch_sends_one_delta_per_control_period(bench):
    bench.run(2.0, "hold", motion=(1.0,))
    assert len(bench.sent) == pytest.approx(2.0 * CONTRACT.control_rate_hz, abs=1)
    assert np.diff(bench.sent_s) == pytest.approx(PERIOD_S, abs=1e-6)
    assert bench.sent[0].translation_m == pytest.approx([0.1 * PERIOD_S, 0.0, 0.0])


def test_the_first_delta_does_not_wait_for_a_grid(bench):
    bench.tick("hold", motion=(1.0,))
    assert len(bench.sent) == 1


def test_nothing_goes_out_while_the_switch_is_open(bench):
    bench.run(1.0, motion=(1.0, 1.0, 1.0))
    assert not bench.sent
    assert bench.teleop.reason == "the switch is open"


def test_letting_go_ends_it_at_once(bench):
    bench.run(1.0, "hold", motion=(1.0,))
    sent = len(bench.sent)
    bench.run(1.0, motion=(1.0,))
    assert len(bench.sent) == sent


def test_a_switch_that_is_down_from_the_start_must_be_let_go_first():
    bench = Bench()
    bench.run(1.0, "hold", motion=(1.0,))
    assert not bench.sent
    assert bench.teleop.reason == "let go of the switch first"
    bench.tick()
    bench.tick("hold", motion=(1.0,))
    assert len(bench.sent) == 1


def test_activation_wants_the_switch_open_first(bench):
    bench.run(0.5, "hold")
    sent = len(bench.sent)
    bench.teleop.begin()
    bench.run(0.5, "hold")
    assert len(bench.sent) == sent
    bench.tick()
    bench.tick("hold")
    assert len(bench.sent) == sent + 1


def test_silence_ends_it_within_the_timeout_and_wants_the_switch_open_again(bench):
    bench.run(1.0, "hold", motion=(1.0,))
    ended_s = bench.now_s
    bench.run(1.0, silent=True)
    assert bench.sent_s[-1] <= ended_s + TIMEOUT_S + TICK_S
    assert bench.teleop.reason == "the device is silent"
    sent = len(bench.sent)
    bench.run(1.0, "hold", motion=(1.0,))
    assert len(bench.sent) == sent, "a stuck switch must not start the arm when the device is back"
    bench.tick()
    bench.tick("hold")
    assert len(bench.sent) == sent + 1


@pytest.mark.parametrize("age_s", [TIMEOUT_S + 0.1, -0.2])
def test_readings_with_old_or_future_stamps_count_as_silence(bench, age_s):
    for _ in range(50):
        bench.tick("hold", motion=(1.0,), stamp_s=bench.now_s + TICK_S - age_s)
    assert not bench.sent
    assert bench.teleop.reason == "the device is silent"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"obeys": False, "reason": "stopped by a person"}, "stopped by a person"),
        ({"contract_hash": "of another arm"}, "contract"),
    ],
)
def test_an_arm_that_does_not_obey_gets_nothing_until_the_switch_was_opened(bench, change, words):
    bench.run(0.5, "hold", motion=(1.0,))
    sent, good = len(bench.sent), dict(bench.arm)
    bench.arm.update(change)
    bench.run(0.5, "hold", motion=(1.0,))
    assert len(bench.sent) == sent
    assert any(words in text for text in bench.said)
    bench.arm = good
    bench.run(0.5, "hold", motion=(1.0,))
    assert len(bench.sent) == sent, "the arm would start by itself once it is cleared"
    bench.tick()
    bench.tick("hold")
    assert len(bench.sent) == sent + 1


def test_a_stop_that_is_cleared_at_once_wants_the_switch_opened_too(bench):
    """Regression pinned: what came and went between two ticks was not looked at."""
    bench.run(0.5, "hold", motion=(1.0,))
    sent, obeys = len(bench.sent), ArmReport(received_s=bench.now_s, **bench.arm)
    for report in (replace(obeys, obeys=False, reason="stopped by a person"), obeys):
        bench.teleop.hear_arm(ArmSeen(report=report, gripper=0.0, tool_33=np.eye(3)))
    bench.run(0.5, "hold", motion=(1.0,))
    assert len(bench.sent) == sent
    bench.tick()
    bench.tick("hold")
    assert len(bench.sent) == sent + 1


def test_the_stop_button_wants_the_switch_opened_whatever_the_arm_says(bench):
    bench.run(0.5, "hold", motion=(1.0,))
    sent = len(bench.sent)
    assert bench.tick("hold", "stop", motion=(1.0,)) == ["stop"]
    bench.run(0.5, "hold", motion=(1.0,))
    assert len(bench.sent) == sent
    bench.tick()
    bench.tick("hold")
    assert len(bench.sent) == sent + 1


def test_a_silent_arm_gets_nothing(bench):
    bench.run(0.5, "hold")
    bench.run(1.0, "hold", arm_silent=True)
    sent = len(bench.sent)
    bench.run(1.0, "hold", arm_silent=True)
    assert len(bench.sent) == sent
    assert "the arm node is silent" in " ".join(bench.said)


def test_taking_over_keeps_the_gripper_as_the_arm_has_it(bench):
    bench.gripper = 1.0
    bench.run(0.1, "hold")
    assert bench.sent[0].gripper == 1.0


def test_the_gripper_toggles_once_per_press_and_survives_a_stale_arm_state(bench):
    bench.tick("hold")
    bench.run(0.4, "hold", "gripper")
    assert bench.sent[-1].gripper == 1.0
    bench.tick()
    bench.run(0.22, "hold")  # the arm state still says 0
    assert bench.sent[-1].gripper == 1.0
    bench.gripper = 1.0
    bench.run(0.5)
    bench.run(0.1, "hold", "gripper")
    assert bench.sent[-1].gripper == 0.0


def test_the_gripper_button_alone_moves_nothing(bench):
    bench.run(0.5, "gripper")
    bench.run(0.1, "hold")
    assert bench.sent[-1].gripper == 0.0


def test_slow_is_slower(bench):
    bench.tick("hold", "slow", motion=(1.0,))
    assert bench.sent[0].translation_m[0] == pytest.approx(0.3 * 0.1 * PERIOD_S)


def test_tool_axes_turn_with_the_tool():
    bench = Bench(in_tool_frame=True)
    bench.tool_33 = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # points down
    bench.tick()
    bench.tick("hold", motion=(1.0, 0.0, 0.0, 1.0))
    assert bench.sent[0].translation_m == pytest.approx([0.0, 0.0, -0.1 * PERIOD_S])
    assert bench.sent[0].rotation_rad == pytest.approx([0.0, 0.0, -0.5 * PERIOD_S])


def test_verbs_come_once_per_press_and_without_the_switch(bench):
    assert bench.tick("stop") == ["stop"]
    assert bench.tick("stop") == []
    bench.tick()
    assert bench.tick("stop", "hold", "gripper", "slow", "ready") == ["stop"]


def test_a_button_that_is_down_after_a_silence_was_not_pressed(bench):
    bench.run(1.0, silent=True)
    assert bench.tick("clear") == []
    bench.tick()
    assert bench.tick("clear") == ["clear"]


def test_a_stop_that_was_pressed_in_a_silence_is_one(bench):
    """Regression pinned: a stop button that went down while the device was silent did nothing until it was let go."""
    bench.run(1.0, silent=True)
    assert bench.tick("clear", "stop") == ["stop"]
    bench.run(1.0, silent=True)
    assert bench.tick("stop") == [], "it was down before the silence"


def test_of_an_old_reading_only_the_stop_counts(bench):
    """Regression pinned: a clear came as late as its reading."""
    assert bench.tick("clear", "stop", stamp_s=bench.now_s - 1.0) == ["stop"]


def test_the_ready_move_is_hold_to_run_too(bench):
    asked = []
    for pressed, silent in [((), 0), (("ready",), 0), (("ready",), 0), ((), 0), (("ready",), 0)]:
        bench.tick(*pressed, silent=bool(silent))
        asked.append(bench.teleop.ready_verb(bench.now_s))
    assert asked == ["", "ready", "", "hold", "ready"]
    bench.run(0.5, silent=True)
    assert bench.teleop.ready_verb(bench.now_s) == "hold"
    bench.tick("ready")
    assert bench.teleop.ready_verb(bench.now_s) == "", "stuck since the silence"


def test_a_ready_move_is_ended_with_the_teleoperation_and_not_begun_again(bench):
    bench.tick()
    assert not bench.teleop.end(), "none is under way"
    bench.tick()
    bench.tick("ready")
    assert bench.teleop.ready_verb(bench.now_s) == "ready"
    assert [bench.teleop.end(), bench.teleop.end()] == [True, False]
    bench.tick("ready")
    assert bench.teleop.ready_verb(bench.now_s) == "", "the button must be let go first"


def test_a_clock_that_was_set_back_does_not_stop_it_for_long(bench):
    bench.run(0.5, "hold")
    bench.now_s -= 100.0
    bench.tick()
    sent = len(bench.sent)
    bench.run(0.4, "hold")
    assert len(bench.sent) >= sent + 2


BUTTON_SETS = st.sets(st.sampled_from(["hold", "gripper", "slow", "stop", "ready"]))
MOMENTS = st.tuples(
    BUTTON_SETS,
    st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6),
    st.booleans(),
    st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(moments=st.lists(MOMENTS, min_size=1, max_size=60), speed=st.floats(0.01, 5.0))
def test_whatever_the_hand_does_the_contract_holds(moments, speed):
    """At most one delta per period, never above a cap, never without a fresh closed switch, always a valid gripper."""
    bench = Bench(linear_m_s=speed, angular_rad_s=5.0 * speed)
    heard_hold_s = float("-inf")
    for pressed, motion, silent, pause_s in moments:
        bench.now_s += pause_s
        before = len(bench.sent)
        bench.tick(*pressed, motion=motion, silent=silent)
        if not silent:
            heard_hold_s = bench.now_s if "hold" in pressed else float("-inf")
        if len(bench.sent) > before:
            assert bench.now_s - heard_hold_s <= TIMEOUT_S
    assert all(np.diff(bench.sent_s) > 0.9 * PERIOD_S)
    for delta in bench.sent:
        assert np.linalg.norm(delta.translation_m) <= CONTRACT.max_translation_m + 1e-9
        assert np.linalg.norm(delta.rotation_rad) <= CONTRACT.max_rotation_rad + 1e-9
        assert delta.gripper in (0.0, 1.0)


def read(axes=(0.0,) * 6, buttons=(0,) * 11, dead_zone=0.1, lines=OWN_AXES):
    return ControlMap(lines, OWN_BUTTONS, dead_zone).read(axes, buttons, 5.0)


def test_a_map_puts_axes_and_buttons_where_they_belong():
    control_map = ControlMap(["x -1", "rz +0"], ["hold 2", "stop 0"], 0.0)
    controls = control_map.read([0.25, 0.5, 9.0], [0, 1, 1], 7.0)
    assert dict(zip(MOTIONS, controls.motion, strict=True)) == {
        "x": -0.5, "y": 0.0, "z": 0.0, "rx": 0.0, "ry": 0.0, "rz": 0.25,
    }  # fmt: skip
    assert controls.pressed == {"hold"}
    assert controls.stamp_s == 7.0


@given(value=st.floats(-3.0, 3.0), dead_zone=st.floats(0.0, 0.9))
def test_the_dead_zone_is_continuous_odd_and_bounded(value, dead_zone):
    out = read((value, -value, 0, 0, 0, 0), dead_zone=dead_zone).motion
    assert out[0] == -out[1]
    assert abs(out[0]) <= 1.0
    assert (out[0] == 0.0) == (abs(value) <= dead_zone) or abs(out[0]) < 1e-12
    near = read((value + 1e-6, 0, 0, 0, 0, 0), dead_zone=dead_zone).motion[0]
    assert abs(near - out[0]) < 1e-4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_deflections_that_are_not_finite_are_refused(value):
    with pytest.raises(ActionError, match="finite"):
        read((0, value, 0, 0, 0, 0))


def test_another_device_than_the_map_is_for_is_refused():
    with pytest.raises(ActionError, match="2 axes and 11 buttons; its map needs 6 and 11"):
        read((0.0, 0.0))


@pytest.mark.parametrize(
    ("axes", "buttons", "words"),
    [
        (["x 1"], ["hold 0"], "'x 1'"),
        (["w +1"], ["hold 0"], "'w \\+1'"),
        (["x +1", "x +2"], ["hold 0"], "twice"),
        (["x +1"], ["jump 0"], "jump"),
        (["x +1"], ["stop 0"], "no `hold`"),
    ],
)
def test_a_wrong_map_is_refused(axes, buttons, words):
    with pytest.raises(ContractError, match=words):
        ControlMap(axes, buttons, 0.1)


def test_a_refusal_of_the_motion_ends_it(bench):
    bench.run(0.3, "hold")
    bench.teleop._motion = SimpleNamespace(begin=lambda *_: None, step=lambda *_: fail())
    bench.run(0.5, "hold")
    assert bench.said[-2:] == [
        "not moving: the leader is gone",
        "not moving: let go of the switch first",
    ]


def fail():
    raise ActionError("the leader is gone")
