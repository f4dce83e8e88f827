# SPDX-License-Identifier: Apache-2.0
"""Which deltas were applied: what `arm_state` counts and names, in the awkward cases."""

import random
from collections import Counter
from types import SimpleNamespace

import pytest

from lapa_core.data.confirmation import applied_deltas


def delta(sequence, source="policy"):
    return SimpleNamespace(source=source, sequence=sequence)


def state(applied, sequence, source="policy"):
    return SimpleNamespace(
        applied=applied, last_applied_sequence=sequence, last_applied_source=source
    )


def numbers(deltas, states):
    found, reasons = applied_deltas(deltas, states)
    return [message.sequence for message in found], bool(reasons)


@pytest.mark.parametrize(
    ("sequences", "states", "expected", "refused"),
    [
        ([1, 2, 3], [(0, 0), (1, 1), (2, 2), (3, 3)], [1, 2, 3], False),
        ([1, 2, 3], [(0, 0), (1, 1), (1, 1), (2, 3)], [1, 3], False),  # 2 was refused
        ([1, 2, 3], [(0, 0), (3, 3)], [1, 2, 3], False),  # three between two states
        ([1, 2, 3], [(0, 0), (2, 3)], [3], True),  # two of three: which ones?
        ([1, 3], [(0, 0), (1, 1), (3, 3)], [1, 3], True),  # 2 was applied but not recorded
        ([5, 6], [(3, 3), (4, 4), (5, 5), (6, 6)], [5, 6], False),  # 4 came before the recording
        ([5, 6], [(5, 5), (6, 6)], [5, 6], False),  # applied before the first state
        ([5, 6, 7], [(9, 5), (0, 0), (1, 6), (2, 7)], [5, 6, 7], False),  # arm activated anew
        ([5, 6, 7], [(2, 5), (0, 5), (1, 6), (2, 7)], [5, 6, 7], False),  # the same, as it is told
        ([5, 6], [(1, 5), (1, 6)], [5, 6], False),  # anew, and the state with 0 was lost
        ([5, 6, 7], [(2, 5), (2, 7)], [5, 6, 7], False),
        ([1, 1, 2], [(0, 0), (1, 1), (2, 2)], [1, 2], False),  # a repeated number is not applied
        ([1, 2], [(0, 0), (0, 0)], [], False),
        (
            [5, 6, 8],
            [(0, 0), (1, 5), (2, 7), (3, 8)],
            [5, 8],
            True,
        ),  # 6 was refused, 7 not recorded
        ([1, 2, 4], [(0, 0), (1, 1), (3, 4)], [1, 4], True),  # the same with 3, between two states
        ([5, 6, 7], [(1, 5), (0, 6), (1, 7)], [5, 6, 7], False),  # 6, then anew
        ([5, 6, 7], [(3, 5), (1, 7)], [5, 7], True),  # anew: was 6 applied before that, or refused?
    ],
)
def test_confirmed_deltas(sequences, states, expected, refused):
    found = numbers([delta(s) for s in sequences], [state(*s) for s in states])
    assert found == (expected, refused)


def test_sources_are_kept_apart():
    deltas = [delta(1), delta(1, "operator"), delta(2), delta(2, "operator")]
    states = [state(0, 0), state(1, 1), state(2, 2, "operator")]
    found, reasons = applied_deltas(deltas, states)
    assert [(m.source, m.sequence) for m in found] == [("policy", 1), ("operator", 2)]
    assert reasons == []  # the count has room for one of the operator's two: the other was refused


def test_two_sources_between_two_states():
    deltas = [delta(1, "operator"), delta(2, "operator"), delta(1)]
    found, reasons = applied_deltas(deltas, [state(0, 0), state(1, 1, "operator"), state(3, 1)])
    assert found == deltas
    assert reasons == []


@pytest.mark.parametrize("seed", range(4))
def test_what_is_lost_makes_a_refusal_and_never_a_wrong_row(seed):
    """An arm that refuses at random, a recorder that loses deltas and states at random."""
    rng = random.Random(seed)
    verdicts = Counter()
    for _ in range(300):
        applied, recorded, states = [1], [delta(1)], [state(0, 0), state(1, 1)]
        losses = rng.choice([0.0, 0.2])
        for number in range(2, rng.randrange(4, 14)):
            if rng.random() >= losses:
                recorded.append(delta(number))
            if rng.random() < 0.7:
                applied.append(number)
            if rng.random() < 0.6:
                states.append(state(len(applied), applied[-1]))
        states.append(state(len(applied), applied[-1]))
        found, refused = numbers(recorded, states)
        verdicts[refused] += 1
        assert refused or found == applied
    assert min(verdicts[False], verdicts[True]) > 30
