# SPDX-License-Identifier: Apache-2.0
"""The Gymnasium environment: Gymnasium's own checker, seeds, refusals, the controller in between."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import lapa_core.sim  # noqa: F401  (registers the environment)
from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.errors import ContractError
from lapa_core.image import preprocess
from lapa_core.robot.controller import ArmController
from lapa_core.sim.env import TabletopEnv
from lapa_core.sim.expert import expert_action
from lapa_core.sim.layout import sample_layout
from lapa_core.sim.tasks import sample_task

NOTHING = np.zeros(7, dtype=np.float32)


def test_gymnasiums_checker_accepts_the_registered_environment():
    env = gymnasium.make("lapa/Tabletop-v0", render_mode="rgb_array", render_px=96)
    try:
        check_env(env.unwrapped)
        env.reset(seed=0)
        assert env.render().shape == (96, 96, 3)
    finally:
        env.close()


def test_seeds_fix_the_episode(env):
    first, _ = env.reset(seed=11)
    second, _ = env.reset(seed=11)
    assert first["instruction"] == second["instruction"]
    assert np.array_equal(first["image"], second["image"])
    other, _ = env.reset(seed=12)
    assert not np.array_equal(first["image"], other["image"])


def test_a_seed_means_the_same_task_and_layout_as_in_the_ros_sim_node(env):
    """The node draws task, then layout, from `default_rng(seed)`; live episodes can be replayed offline."""
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        task = sample_task(rng)
        layout = sample_layout(rng, task)
        assert task.instruction == observation["instruction"]
        for name, pose in layout.blocks.items():
            assert np.allclose(env.world.start_positions_m[name][:2], pose[:2])


def test_the_image_is_the_cameras_frame_through_preprocess(env):
    observation, _ = env.reset(seed=0)
    camera = env.contract.cameras["front"]
    frame = env.world.render("front", camera.width_px)
    assert np.array_equal(observation["image"], preprocess(frame, camera.image_px))
    assert env.observation_space.contains(observation)


def test_options_fix_the_task(env):
    observation, info = env.reset(seed=0, options={"instruction": "push the blue block right"})
    assert observation["instruction"] == "push the blue block right"
    assert info["family"] == "push_direction"
    _, info = env.reset(seed=0, options={"family": "push_to_block"})
    assert info["family"] == "push_to_block"
    with pytest.raises(ContractError, match="colour"):
        env.reset(options={"colour": "red"})


def test_a_delta_moves_the_tool_by_itself_in_base_axes(env):
    _, info = env.reset(seed=0)
    start = info["ee_position_m"]
    env.step(np.array([0, 0, 0.03, 0, 0, 0, 0], dtype=np.float32))
    _, _, _, _, info = env.step(np.array([0.02, -0.03, 0, 0, 0, 0, 0], dtype=np.float32))
    assert np.allclose(info["ee_position_m"] - start, [0.02, -0.03, 0.03], atol=2e-3)


def test_all_seven_dimensions_act(env):
    env.reset(seed=0)
    env.step(np.array([0, 0, 0.04, 0, 0, 0, 0], dtype=np.float32))
    before = env.world.ee_pose_44
    env.step(np.array([0, 0, 0, 0, 0, 0.2, 1.0], dtype=np.float32))
    turned = before[:3, :3].T @ env.world.ee_pose_44[:3, :3]
    assert np.arccos((np.trace(turned) - 1) / 2) == pytest.approx(0.2, abs=0.01)
    env.step(np.array([0, 0, 0, 0, 0, 0, 1.0], dtype=np.float32))
    assert env.world.gripper > 0.9


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ([0.2, 0, 0, 0, 0, 0, 0], "translation"),
        ([0, 0, 0, 1.0, 0, 0, 0], "rotation"),
        ([np.nan, 0, 0, 0, 0, 0, 0], "finite"),
        ([0, 0, 0, 0, 0, 0, 2.0], "gripper"),
        ([0, 0, 0], "shape"),
    ],
)
def test_a_refused_action_holds_the_arm_and_is_reported(env, action, reason):
    _, info = env.reset(seed=0)
    before = info["ee_position_m"]
    _, reward, done, _, info = env.step(np.array(action, dtype=np.float32))
    assert info["refused"] == 1
    assert reason in info["refusal"]
    assert np.allclose(info["ee_position_m"], before, atol=1e-3)
    assert (reward, done) == (0.0, False)
    _, _, _, _, info = env.step(NOTHING)
    assert (info["refused"], info["refusal"]) == (1, "")


def test_the_arm_goes_where_the_nodes_controller_sends_it(env):
    """Regression guard of "offline = live": the same controller, fed the same deltas, names the same target."""
    env.reset(seed=3, options={"family": "push_direction"})
    controller = ArmController(env.contract)
    controller.reset(env.world.joints_rad, 0.0)
    for step in range(4):
        action = expert_action(env.world, env.task)
        controller.apply(EndEffectorDelta.from_array(action.astype(np.float32)), step * 0.2)
        env.step(action.astype(np.float32))
        assert np.allclose(env.controller.target_44, controller.target_44)
        assert np.allclose(env.world.joints_rad, controller.sample(step * 0.2 + 0.2), atol=5e-3)


def test_an_episode_is_truncated_and_starts_not_done():
    env = TabletopEnv(max_steps=2)
    try:
        _, info = env.reset(seed=0, options={"family": "push_to_block"})
        assert info["success"] is False
        assert env.step(NOTHING)[2:4] == (False, False)
        assert env.step(NOTHING)[2:4] == (False, True)
    finally:
        env.close()


def test_wrong_arguments_name_the_allowed_ones():
    for arguments, allowed in (
        ({"domain": "mars"}, "shifted"),
        ({"families": ("stack",)}, "push_to_block"),
        ({"render_mode": "human"}, "rgb_array"),
        ({"max_steps": 0}, "at least 1"),
    ):
        with pytest.raises(ContractError, match=allowed):
            TabletopEnv(**arguments)
