# SPDX-License-Identifier: Apache-2.0
"""A person takes the arm from a policy at once, and the policy gets it back only when the person has let go."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lapa_ros.arm_gate import Refused
from lapa_ros.arm_sources import SourceArbiter

from lapa_core.errors import ContractError

HANDOVER_S = 1.0


@pytest.fixture
def arbiter():
    return SourceArbiter(["operator", "policy"], HANDOVER_S)


def test_a_higher_source_takes_the_arm_at_once_and_a_lower_one_after_the_handover(arbiter):
    assert not arbiter.take("policy", 0.0), "nobody had it"
    arbiter.check("operator", 0.1)
    assert arbiter.take("operator", 0.1)
    with pytest.raises(Refused, match="operator has the arm") as refusal:
        arbiter.check("policy", 1.0)
    assert refusal.value.kind == "source"
    arbiter.check("policy", 1.2)
    assert arbiter.take("policy", 1.2)


def test_an_operator_that_goes_on_keeps_the_arm(arbiter):
    for tick in range(50):
        arbiter.check("operator", 0.2 * tick)
        arbiter.take("operator", 0.2 * tick)
        with pytest.raises(Refused):
            arbiter.check("policy", 0.2 * tick + 0.1)


def test_strangers_are_refused(arbiter):
    with pytest.raises(Refused, match=r"obeys \['operator', 'policy'\]"):
        arbiter.check("joystick", 0.0)


def test_a_clock_that_is_set_back_begins_the_handover_anew_and_does_not_last_for_ever(arbiter):
    arbiter.take("operator", 1000.0)
    arbiter.forget_times(3.0)
    with pytest.raises(Refused):
        arbiter.check("policy", 3.5)
    arbiter.check("policy", 4.1)


@pytest.mark.parametrize("sources", [[], ["policy", "policy"], [""]])
def test_a_list_that_cannot_be_obeyed_is_refused(sources):
    with pytest.raises(ContractError, match="highest first"):
        SourceArbiter(sources, HANDOVER_S)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0.0, 0.7)), max_size=60))
def test_nobody_gets_the_arm_while_a_higher_source_has_it(commands):
    arbiter, now_s = SourceArbiter(["a", "b", "c"], HANDOVER_S), 0.0
    last_s = dict.fromkeys("abc", -np.inf)
    for source, pause_s in commands:
        now_s += pause_s
        try:
            arbiter.check(source, now_s)
        except Refused:
            assert arbiter.holder < source
            assert now_s - last_s[arbiter.holder] < HANDOVER_S
        else:
            assert (
                not arbiter.holder
                or arbiter.holder >= source
                or now_s - last_s[arbiter.holder] >= HANDOVER_S
            )
            arbiter.take(source, now_s)
            last_s[source] = now_s
