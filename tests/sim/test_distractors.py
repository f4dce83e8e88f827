# SPDX-License-Identifier: Apache-2.0
"""The domain `hard`: objects that move by themselves, the same for the same seed, and no part of the physics."""

import hashlib

import numpy as np
import pytest

from lapa_core.robot.models import get_arm_model
from lapa_core.sim.appearance import DOMAINS
from lapa_core.sim.distractors import DISTRACTORS, DistractorPaths
from lapa_core.sim.layout import sample_layout
from lapa_core.sim.scene import build_mjcf
from lapa_core.sim.world import TabletopWorld

COUNT = DOMAINS["hard"].distractors


def paths(seed):
    return DistractorPaths(COUNT, sample_layout(np.random.default_rng(seed)))


@pytest.mark.parametrize(
    ("domain", "digest"), [("default", "29b3401bcf94c2e8"), ("shifted", "8de940a73ca86ccb")]
)
def test_the_older_domains_are_what_they_were_before_there_were_distractors(domain, digest):
    text = build_mjcf(get_arm_model("wx250s"), DOMAINS[domain])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_paths_are_a_function_of_layout_and_time():
    one, same, other = paths(0), paths(0), paths(1)
    assert np.array_equal(one.at(1.7)[0], same.at(1.7)[0])
    assert np.abs(one.at(1.7)[0] - other.at(1.7)[0]).max() > 0.02


def test_paths_are_smooth_stay_in_their_region_and_are_as_fast_as_the_arm():
    times_s = np.arange(0.0, 20.0, 0.02)
    position_TN3 = np.stack([paths(2).at(t)[0] for t in times_s])
    centre_N3 = np.array([item.centre_m for item in DISTRACTORS[:COUNT]])
    reach_N2 = np.array([item.reach_m for item in DISTRACTORS[:COUNT]])
    assert (np.abs(position_TN3 - centre_N3)[..., :2] <= reach_N2 + 1e-9).all()
    speed_TN = np.linalg.norm(np.diff(position_TN3, axis=0), axis=-1) / 0.02
    assert 0.03 < speed_TN.mean() < 0.15
    assert speed_TN.max() < 0.6


def test_distractors_move_in_the_picture_while_the_arm_rests_and_touch_nothing():
    with TabletopWorld("hard") as world:
        world.reset(seed=0)
        assert world.arm.name == "vx300s"
        blocks, joints = world.block_positions_m, world.joints_rad
        before = world.render("front", 64).astype(int)
        world.step(1.0)
        after = world.render("front", 64).astype(int)
        assert (np.abs(after - before).max(axis=-1) > 20).sum() > 40, "pixels that changed"
        assert np.abs(world.joints_rad - joints).max() < 2e-3
        for name, position in world.block_positions_m.items():
            assert np.linalg.norm(position - blocks[name]) < 1e-3, name
        world.reset(seed=0)
        assert np.array_equal(world.render("front", 64), before)


def test_the_expert_still_solves_the_tasks_in_the_hard_domain():
    from lapa_core.sim.rollout import RolloutConfig, collect_episodes

    config = RolloutConfig(domain="hard", seed=7, image_px=32)
    episodes = collect_episodes(4, config, workers=1)
    assert sum(episode.source.endswith("attempt 0") for episode in episodes) >= 3
    again = collect_episodes(1, config, workers=1, start=2)[0]
    assert np.array_equal(again.frames, episodes[2].frames)
