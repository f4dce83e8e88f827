# SPDX-License-Identifier: Apache-2.0
"""The scripted expert: it succeeds, it has no memory, and its labels are clean."""

import numpy as np
import pytest

from lapa_core.errors import ContractError
from lapa_core.sim.expert import MAX_STEP_M, ExecutionNoise, NoiseConfig, expert_action
from lapa_core.sim.instructions import FAMILIES


@pytest.mark.parametrize("noise", [NoiseConfig(), None], ids=["noisy", "clean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_expert_succeeds(env, family, noise):
    for seed in range(4):
        env.reset(seed=seed, options={"family": family})
        disturb = ExecutionNoise(noise, np.random.default_rng(seed)) if noise else None
        done = truncated = False
        while not (done or truncated):
            action = expert_action(env.world, env.task)
            assert np.linalg.norm(action[:2]) <= MAX_STEP_M + 1e-9
            assert not action[2:].any(), "planar, gripper closed"
            executed = disturb.perturb(action, 0.05) if disturb else action
            _, reward, done, truncated, info = env.step(executed)
        assert done, (family, seed)
        assert reward == 1.0
        assert info["refused"] == 0


def test_the_action_depends_on_the_state_alone(env):
    env.reset(seed=0, options={"family": "push_to_block"})
    for _ in range(5):
        env.step(expert_action(env.world, env.task))
    assert np.array_equal(expert_action(env.world, env.task), expert_action(env.world, env.task))


def test_noise_is_bounded_seeded_and_leaves_the_label_alone():
    config = NoiseConfig(max_sigma_m=0.05, burst_probability=0.5)
    label = np.array([0.03, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    runs = []
    for _ in range(2):
        noise = ExecutionNoise(config, np.random.default_rng(3))
        runs.append([noise.perturb(label, 0.05) for _ in range(50)])
    assert np.array_equal(*runs)
    assert np.array_equal(label, [0.03, 0, 0, 0, 0, 0, 0])
    lengths = np.linalg.norm(np.array(runs[0])[:, :3], axis=1)
    assert lengths.max() <= 0.05 + 1e-12
    assert lengths.std() > 0.003


def test_no_noise_changes_nothing():
    quiet = ExecutionNoise(
        NoiseConfig(max_sigma_m=0, burst_probability=0), np.random.default_rng(0)
    )
    label = np.array([0.01, -0.02, 0, 0, 0, 0, 1.0])
    assert np.array_equal(quiet.perturb(label, 0.05), label)


@pytest.mark.parametrize("field", ["max_sigma_m", "burst_probability", "burst_step_m"])
def test_noise_that_cannot_be_is_refused(field):
    for value in (-0.1, float("nan")):
        with pytest.raises(ContractError, match="0 or more"):
            NoiseConfig(**{field: value})
