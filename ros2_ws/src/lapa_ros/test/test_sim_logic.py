# SPDX-License-Identifier: Apache-2.0
"""The simulated arm follows fresh commands, holds without them, and starts scenes that Gymnasium would start too."""

import itertools

import numpy as np
import pytest
from lapa_ros.sim_logic import Pacer, SimLogic

from lapa_core.errors import ActionError, ContractError
from lapa_core.robot.contract import load_contract
from lapa_core.sim.env import TabletopEnv


@pytest.fixture(scope="module")
def logic_and_words():
    said = []
    logic = SimLogic(
        load_contract("wx250s_sim"), "default", 0.06, 0.2, lambda level, text: said.append(text)
    )
    yield logic, said
    logic.world.close()


@pytest.fixture
def logic(logic_and_words):
    logic, said = logic_and_words
    said.clear()
    logic.reset(3, "")
    logic.said = said
    logic.now_s = (getattr(logic, "now_s", 100.0)) + 10.0
    logic.advance(logic.now_s)
    said.clear()
    return logic


def drive(logic, joints_rad, seconds):
    names, positions, _ = logic.joint_states()
    for _ in range(round(seconds / 0.02)):
        logic.now_s += 0.02
        logic.command(names, [*joints_rad, positions[6]], logic.now_s)
        logic.advance(logic.now_s)


def test_the_same_seed_gives_the_scene_of_the_gymnasium_environment(logic):
    env = TabletopEnv()
    _, info = env.reset(seed=3)
    assert logic.task == env.task
    np.testing.assert_allclose(logic.world.joints_rad, env.world.joints_rad, atol=1e-2)
    assert info["family"] == logic.task.family
    env.close()


def test_it_follows_targets_and_publishes_them_as_measured(logic):
    target_rad = logic.world.joints_rad + np.array([0.1, 0, 0, 0, 0, 0])
    drive(logic, target_rad, 0.6)
    names, positions, velocities = logic.joint_states()
    assert names[0] == "waist"
    assert names[-1] == "gripper"
    assert positions[0] == pytest.approx(target_rad[0], abs=0.01)
    assert 0.029 < positions[-1] < 0.075, "the gripper's entry is the gap of the fingers in metres"
    assert len(velocities) == 7


def test_after_a_reset_far_commands_are_ignored_until_a_close_one(logic):
    start_rad = logic.world.joints_rad
    drive(logic, start_rad + np.array([0.5, 0, 0, 0, 0, 0]), 0.3)
    assert abs(logic.world.joints_rad[0] - start_rad[0]) < 0.02
    drive(logic, start_rad, 0.1)
    drive(logic, start_rad + np.array([0.3, 0, 0, 0, 0, 0]), 0.8)
    assert abs(logic.world.joints_rad[0] - start_rad[0]) > 0.2


def test_without_commands_it_holds_where_it_is_and_says_so_once(logic):
    target_rad = logic.world.joints_rad + np.array([0.6, 0, 0, 0, 0, 0])
    drive(logic, logic.world.joints_rad, 0.02)
    drive(logic, target_rad, 0.02)
    for _ in range(50):
        logic.now_s += 0.02
        logic.advance(logic.now_s)
    assert logic.holding
    assert abs(logic.world.data.ctrl[0] - target_rad[0]) > 1e-3, "it was held on the way"
    assert sum("no joint command" in text for text in logic.said) == 1


@pytest.mark.parametrize(
    "spoil", [lambda n, p: (n[1:], p[1:]), lambda n, p: (n, p[1:]), lambda n, p: (n, [np.nan] * 7)]
)
def test_unusable_commands_change_nothing(logic, spoil):
    names, positions, _ = logic.joint_states()
    drive(logic, positions[:6], 0.04)
    before = logic.world.data.ctrl.copy()
    with pytest.raises(ActionError):
        logic.command(*spoil(names, positions), logic.now_s)
    np.testing.assert_array_equal(logic.world.data.ctrl, before)


def test_a_stall_is_reported_and_not_simulated(logic):
    before_s = logic.elapsed_s
    logic.now_s += 5.0
    logic.advance(logic.now_s)
    assert logic.elapsed_s - before_s < 0.5
    assert any("stalled" in text for text in logic.said)


def test_an_unknown_instruction_is_refused_and_the_scene_stays(logic):
    episode = logic.episode
    with pytest.raises(ContractError):
        logic.reset(1, "make me a sandwich")
    assert logic.episode == episode


def test_a_pacer_keeps_its_mean_rate_on_a_grid_that_does_not_divide_it():
    pacer = Pacer(20.0)
    ticks = [tick for tick in range(500) if pacer.due(50.0 + 0.02 * tick)]
    assert len(ticks) == 200
    assert {second - first for first, second in itertools.pairwise(ticks)} == {2, 3}


@pytest.mark.parametrize("step_s", [0.5, 900.0])
def test_a_clock_that_was_set_back_does_not_stop_the_camera(step_s):
    pacer = Pacer(20.0)
    before = sum(pacer.due(5000.0 + 0.02 * tick) for tick in range(50))
    after = sum(pacer.due(5001.0 - step_s + 0.02 * tick) for tick in range(50))
    assert (before, after) == (20, 20)


def test_a_clock_that_was_set_back_does_not_disarm_the_hold(logic):
    drive(logic, logic.world.joints_rad, 0.2)
    logic.now_s -= 50.0
    for _ in range(10):
        logic.now_s += 0.02
        logic.advance(logic.now_s)
    assert logic.holding
