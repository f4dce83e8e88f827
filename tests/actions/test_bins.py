# SPDX-License-Identifier: Apache-2.0
"""Bins: ragged, exact for few values, and impossible to leave."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import ActionError


def planar_actions(count: int = 500, seed: int = 0) -> np.ndarray:
    """Deltas that move in x and y only, with a binary gripper."""
    rng = np.random.default_rng(seed)
    actions = np.zeros((count, 7))
    actions[:, :2] = rng.normal(0, 0.02, (count, 2))
    actions[:, 6] = rng.integers(0, 2, count)
    return actions


def test_constant_dimensions_have_one_exact_bin():
    bins = ActionBins.fit(planar_actions(), max_bins=32)
    assert bins.counts.tolist() == [32, 32, 1, 1, 1, 1, 2]
    decoded = bins.decode(np.array([3, 4, 0, 0, 0, 0, 1]))
    assert decoded[2:].tolist() == [0, 0, 0, 0, 1]


def test_repeated_values_drop_bins_as_the_paper_does():
    actions = planar_actions(1000)
    actions[:600, 0] = 0.0
    counts = ActionBins.fit(actions, max_bins=100).counts
    assert counts[0] < counts[1] == 100


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 256))
def test_centres_encode_to_their_own_bin(seed, max_bins):
    bins = ActionBins.fit(planar_actions(300, seed), max_bins=max_bins)
    rng = np.random.default_rng(seed)
    indices = np.array([rng.integers(0, n) for n in bins.counts])
    assert (bins.encode(bins.decode(indices)) == indices).all()


def test_rounding_error_is_at_most_half_a_bin():
    actions = planar_actions()
    bins = ActionBins.fit(actions, max_bins=64)
    for row in actions:
        decoded = bins.decode(bins.encode(row))
        for value, found, edges, index in zip(
            row, decoded, bins.edges, bins.encode(row), strict=True
        ):
            assert abs(value - found) <= (edges[index + 1] - edges[index]) / 2 + 1e-12


def test_mask_is_true_exactly_where_decode_works():
    bins = ActionBins.fit(planar_actions(), max_bins=8)
    for dimension, row in enumerate(bins.mask):
        for index, allowed in enumerate(row):
            indices = np.zeros(7, dtype=np.int64)
            indices[dimension] = index
            if allowed:
                bins.decode(indices)
            else:
                with pytest.raises(ActionError, match=f"bin {index} of"):
                    bins.decode(indices)


def test_json_round_trip_is_exact():
    bins = ActionBins.fit(planar_actions(), max_bins=16)
    again = ActionBins.from_dict(json.loads(json.dumps(bins.to_dict())))
    assert all((a == b).all() for a, b in zip(bins.edges, again.edges, strict=True))
    assert all((a == b).all() for a, b in zip(bins.centres, again.centres, strict=True))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((0, 7)), "allowed is"),
        (np.zeros((3, 6)), "allowed is"),
        (np.full((3, 7), np.nan), "3 of 3 actions are not finite"),
    ],
)
def test_bad_finetuning_sets_are_refused(actions, message):
    with pytest.raises(ActionError, match=message):
        ActionBins.fit(actions)


@pytest.mark.parametrize(
    "bins", [[0] * 6, [0.5] * 7, [-1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 2]]
)
def test_indices_that_do_not_exist_are_refused(bins):
    with pytest.raises(ActionError):
        ActionBins.fit(planar_actions(), max_bins=8).decode(np.array(bins))


def test_values_beyond_the_edges_go_to_the_outer_bins():
    bins = ActionBins.fit(planar_actions(), max_bins=8)
    assert bins.encode(np.array([9.0, -9.0, 0, 0, 0, 0, 0]))[:2].tolist() == [7, 0]


def test_a_gripper_that_is_seldom_between_open_and_closed_decodes_to_open_or_closed():
    """BridgeData's is: 119 of 150 openings are 1, 27 are 0, four lie between."""
    actions = np.zeros((150, 7))
    actions[27:, 6] = 1.0
    actions[27:31, 6] = (0.16, 0.56, 0.975, 0.994)
    bins = ActionBins.fit(actions, 32)
    assert bins.centres[6].tolist() == [0.0, 1.0]
    assert bins.encode(actions)[[0, 27, 28, 149], 6].tolist() == [0, 0, 1, 1]
    actions[:, 6] = np.linspace(0, 1, 150)
    assert len(ActionBins.fit(actions, 32).centres[6]) == 32
