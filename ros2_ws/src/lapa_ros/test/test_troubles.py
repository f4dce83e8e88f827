# SPDX-License-Identifier: Apache-2.0
"""A trouble that recurs is said when it begins and when it is over."""

import pytest
from lapa_ros.troubles import Troubles


@pytest.fixture
def said():
    return []


@pytest.fixture
def troubles(said):
    return Troubles(lambda level, text: said.append((level, text)))


def test_an_episode_is_two_lines(troubles, said):
    for k in range(20):
        troubles.happened("broken frames", f"broken at {k}", k / 5, "error")
        troubles.look(k / 5)
    assert said == [("error", "broken at 0")]
    assert troubles.describe() == "broken at 19"
    troubles.look(19 / 5 + troubles.CALM_S + 0.1)
    assert said[1:] == [("info", "over: broken frames (20 times)")]
    assert troubles.describe() == ""
    troubles.happened("broken frames", "broken again", 10.0)
    assert said[2:] == [("warn", "broken again")]


def test_troubles_of_different_names_are_apart(troubles, said):
    troubles.happened("a", "first", 0.0)
    troubles.happened("b", "second", 1.5)
    troubles.look(2.5)
    assert [text for _, text in said] == ["first", "second", "over: a (once)"]
    assert troubles.describe() == "second"


def test_a_clock_that_was_set_back_does_not_keep_a_trouble_open(troubles, said):
    troubles.happened("a", "first", 5000.0)
    for now_s in (1.0, 2.0, 3.5):
        troubles.look(now_s)
    assert said[-1] == ("info", "over: a (once)")
