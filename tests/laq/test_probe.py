# SPDX-License-Identifier: Apache-2.0
"""The ridge probe on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from lapa_core.errors import DataError
from lapa_core.laq.probe import displacement, motion, one_hot, probe_model, ridge_r2
from tests.laq.dots import DotModel
from tests.toy import toy_store

EPISODE_P = np.repeat(np.arange(40), 20)


def test_r2_is_the_explained_share_of_each_column():
    rng = np.random.default_rng(0)
    x_PF = rng.normal(size=(800, 5))
    noise = rng.normal(size=(800, 2))
    y_PA = np.stack([x_PF[:, 0] + 0.5 * noise[:, 0], 10.0 * noise[:, 1]], axis=1)
    found = ridge_r2(x_PF, y_PA, EPISODE_P)
    assert found.each_A == pytest.approx([0.8, 0.0], abs=0.04)
    assert found.joint == pytest.approx(
        0.01, abs=0.04
    )  # the loud column has nearly all the variance


def test_a_constant_column_has_no_r2():
    x_PF = np.random.default_rng(0).normal(size=(800, 2))
    found = ridge_r2(x_PF, np.stack([x_PF[:, 0], np.ones(800)], axis=1), EPISODE_P)
    assert found.each_A[0] == pytest.approx(1.0, abs=1e-3)
    assert np.isnan(found.each_A[1])


def test_more_features_than_pairs_are_penalised_instead_of_fitted():
    rng = np.random.default_rng(0)
    assert (
        -0.2
        < ridge_r2(rng.normal(size=(800, 900)), rng.normal(size=(800, 1)), EPISODE_P).joint
        < 0.1
    )


def test_motion_sums_deltas_and_keeps_the_grippers_last_value():
    store = toy_store(episodes=4)
    store.actions[:, 6] = np.arange(len(store))
    pairs_P2 = store.valid_pairs(0.4)
    first, later = pairs_P2[3]
    found_7 = motion(store, pairs_P2)[3]
    assert found_7[:6] == pytest.approx(store.actions[first:later, :6].sum(axis=0), abs=1e-6)
    assert found_7[6] == later - 1
    assert np.array_equal(displacement(store, pairs_P2, None), motion(store, pairs_P2)[:, :2])


def test_one_hot_has_a_one_per_token():
    hot = one_hot(np.array([[0, 2], [1, 1]]), 3)
    assert hot.tolist() == [[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]]


def test_probe_tells_a_reader_of_motion_from_a_reader_of_places():
    store = toy_store(episodes=24).subset(np.random.default_rng(0).permutation(24))
    reader = probe_model(DotModel("true"), 0.4, store)
    place = probe_model(DotModel("place"), 0.4, store)
    assert reader.r2_codes > 0.95 > 0.6 > place.r2_codes
    assert reader.r2_shuffled_codes < 0.1


def test_too_few_episodes_are_refused():
    with pytest.raises(DataError, match="at least 4 episodes"):
        probe_model(DotModel(), 0.4, toy_store(episodes=3))
