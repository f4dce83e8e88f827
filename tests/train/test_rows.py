# SPDX-License-Identifier: Apache-2.0
"""Which samples a step takes: each once per epoch, the same ones for any number of processes, sorted on request."""

from __future__ import annotations

import numpy as np
import pytest

from lapa_core.errors import ContractError, DataError
from lapa_core.train.rows import Rows
from lapa_core.train.sampling import Part, batch_indices

LENGTHS = np.random.default_rng(0).integers(1, 50, 43)


@pytest.mark.parametrize("window", [1, 3])
def test_parts_make_up_the_joint_batch(window):
    common = {"count": 43, "batch_size": 8, "seed": 5, "lengths_N": LENGTHS, "window": window}
    whole = Rows(**common)
    halves = [Rows(**common, part=Part(rank=rank, world=2)) for rank in (0, 1)]
    for step in range(12):
        assert np.array_equal(whole(step), np.concatenate([half(step) for half in halves]))


def test_alone_and_unsorted_it_is_the_order_of_always():
    rows = Rows(count=43, batch_size=8, seed=5)
    assert all(np.array_equal(rows(step), batch_indices(43, 8, 5, step)) for step in range(12))


def test_sorting_takes_the_same_samples_and_pads_less():
    plain = Rows(count=43, batch_size=4, seed=1)
    sorts = Rows(count=43, batch_size=4, seed=1, lengths_N=LENGTHS, window=4)
    steps = range(10)  # of one epoch: windows of 4, 4 and 2
    for first in (0, 4, 8):
        inside = range(first, min(first + 4, 10))
        one, other = (np.concatenate([rows(step) for step in inside]) for rows in (plain, sorts))
        assert set(one) == set(other)
    spread = [sum(int(np.ptp(LENGTHS[rows(step)])) for step in steps) for rows in (plain, sorts)]
    assert spread[1] < 0.5 * spread[0]
    first = [int(LENGTHS[sorts(step)].min()) for step in range(4)]
    assert first != sorted(first), "the batches themselves are shuffled"


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ContractError, match="multiple of 3"):
        Rows(count=43, batch_size=8, part=Part(rank=0, world=3))
    with pytest.raises(DataError, match="too few for 4 processes"):
        Rows(count=3, batch_size=8, part=Part(rank=0, world=4))
