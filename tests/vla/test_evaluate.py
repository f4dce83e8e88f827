# SPDX-License-Identifier: Apache-2.0
"""Evaluation: common scenes, honest counts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.evaluate import EvalConfig, rollouts, score

FAMILIES = ("easy", "hard")


class TwoFamilies:
    """Stands in for the simulator's interface only: `easy` ends after two steps, `hard` never does."""

    def __init__(self):
        self.seeds = []

    def reset(self, seed, options):
        self.seeds.append((seed, options["family"]))
        self.family, self.steps = options["family"], 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        done = self.family == "easy" and self.steps == 2
        info = {"success": done, "refused": 3 if self.family == "hard" else 0}
        return self._observe(), float(done), done, not done and self.steps == 5, info

    def _observe(self):
        return {"image": np.zeros((8, 8, 3), np.uint8), "instruction": "go"}


class Still:
    def __init__(self):
        self.episodes = 0

    def reset(self):
        self.episodes += 1

    def act(self, frame, instruction):
        return SimpleNamespace(delta=EndEffectorDelta.from_array(np.zeros(7)))


def test_families_take_turns_on_scenes_fixed_by_seeds():
    env = TwoFamilies()
    still = Still()
    report = rollouts(still, env, FAMILIES, EvalConfig(episodes=4, seed=7, progress=False))
    assert still.episodes == 4, "the same words again are another episode"
    assert env.seeds == [(7, "easy"), (8, "hard"), (9, "easy"), (10, "hard")]
    assert report.overall.rate == 0.5
    assert report.families["easy"].successes == 2
    assert report.families["hard"].successes == 0
    assert report.refused == 6
    assert report.mean_steps == 3.5


def test_standard_error_is_binomial():
    assert score([True] * 9 + [False]).standard_error == pytest.approx((0.9 * 0.1 / 10) ** 0.5)
    assert score([True]).standard_error == 0.0
