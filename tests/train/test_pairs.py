# SPDX-License-Identifier: Apache-2.0
"""Batches of pairs: inside episodes, pure functions of the step, and cut evenly among ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lapa_core.data.store import random_later
from lapa_core.errors import ContractError, DataError
from lapa_core.train.pairs import StorePairs, actions_between
from tests.toy import toy_store

RANGE = (0.2, 0.8)


def test_ranks_side_by_side_are_the_batch_of_one_process():
    store = toy_store()
    one = StorePairs(store, batch_size=12, gap_s=0.4, gap_range_s=RANGE, seed=3)
    parts = [
        StorePairs(store, batch_size=12, gap_s=0.4, gap_range_s=RANGE, seed=3, rank=r, world=3)
        for r in range(3)
    ]
    for step in (0, 5, 40):
        joint = np.concatenate([part.pairs(step) for part in parts])
        assert np.array_equal(joint, one.pairs(step))
    assert all(part.batch(2).x0_BSSC.shape == (4, 32, 32, 3) for part in parts)


def test_random_gaps_cover_their_range_and_stay_in_the_episode():
    store = toy_store(episodes=30, length=8)
    source = StorePairs(store, batch_size=32, gap_s=0.4, gap_range_s=RANGE)
    pairs = np.concatenate([source.pairs(step) for step in range(60)])
    assert np.array_equal(store.episode_ids[pairs[:, 0]], store.episode_ids[pairs[:, 1]])
    gaps_s = store.timestamps_s[pairs[:, 1]] - store.timestamps_s[pairs[:, 0]]
    assert sorted(set(np.round(gaps_s, 6))) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    early = store.timestamps_s[pairs[:, 0]] < 0.5  # far from the end: all gaps fit
    counts = np.unique(np.round(gaps_s[early], 6), return_counts=True)[1] / early.sum()
    assert counts == pytest.approx([1 / 6, 1 / 3, 1 / 3, 1 / 6], abs=0.08)


def test_random_gaps_take_the_nearest_frame_of_uneven_times():
    rng = np.random.default_rng(0)
    times_s = np.sort(rng.uniform(0.0, 3.0, (12, 8)), axis=1)
    store = replace(toy_store(), timestamps_s=times_s.ravel())
    source = StorePairs(store, batch_size=8, gap_s=0.4, gap_range_s=(0.3, 1.2), seed=1)
    for step in range(20):
        pairs = source.pairs(step)
        assert (pairs[:, 1] > pairs[:, 0]).all()
        assert np.array_equal(store.episode_ids[pairs[:, 0]], store.episode_ids[pairs[:, 1]])


def test_random_gaps_never_jump_over_missing_frames():
    """A hole of 17 s: the frame behind it may be the nearest to a gap of 12 s, but is 19 s away."""
    times_N = np.array([0.0, 1, 2, 3, 20, 21, 22, 23])
    pairs_P2 = np.stack([np.arange(3), np.arange(1, 4)], axis=1)
    last_P = np.full(3, 7)
    for share in np.linspace(0, 1, 11):
        later = random_later(times_N, pairs_P2, last_P, (1.0, 14.0), np.full(3, share))
        assert (later <= 3).all()
        assert (later > pairs_P2[:, 0]).all()
    reached = random_later(times_N, pairs_P2, last_P, (1.0, 20.0), np.ones(3))
    assert (times_N[reached] - times_N[:3]).tolist() == [20.0, 20.0, 20.0]


def test_a_step_gives_the_same_pairs_whatever_came_before():
    source = StorePairs(toy_store(), batch_size=8, gap_s=0.4, gap_range_s=RANGE)
    seen = source.pairs(7).copy()
    for step in (0, 1, 30):
        source.pairs(step)
    assert np.array_equal(source.pairs(7), seen)
    assert not np.array_equal(source.pairs(8), seen)


def test_actions_of_a_pair_add_up_and_the_gripper_keeps_its_last_value():
    actions = np.zeros((5, 7), np.float32)
    actions[:, 0] = [1, 2, 3, 4, 5]
    actions[:, 6] = [0, 1, 0, 1, 0]
    between = actions_between(actions, np.array([[0, 2], [1, 4]]))
    assert between[:, 0].tolist() == [3.0, 9.0]
    assert between[:, 6].tolist() == [1.0, 1.0]


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ContractError, match="multiple of 3"):
        StorePairs(toy_store(), batch_size=8, gap_s=0.4, world=3)
    with pytest.raises(DataError, match="too few for 200"):
        StorePairs(toy_store(), batch_size=200, gap_s=0.4, world=200)
