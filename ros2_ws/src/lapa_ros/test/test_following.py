# SPDX-License-Identifier: Apache-2.0
"""How a goal ends."""

import pytest
from lapa_ros.following import Following


@pytest.fixture
def goal():
    return Following("push it", max_duration_s=10.0, started_s=100.0)


QUIET = {"cancelled": False, "success": False, "waiting_for": ""}


@pytest.mark.parametrize(
    ("now_s", "change", "outcome"),
    [
        (101.0, {"cancelled": True}, "cancelled"),
        (101.0, {"success": True}, "success"),
        (110.1, {}, "timeout"),
    ],
)
def test_it_ends_with_its_outcome_and_stays_ended(goal, now_s, change, outcome):
    assert not goal.update(100.5, **QUIET)
    assert goal.update(now_s, **{**QUIET, **change})
    assert goal.outcome == outcome
    assert goal.update(200.0, **{**QUIET, "success": True})
    assert goal.outcome == outcome


def test_a_short_hindrance_is_borne_a_long_one_halts_with_its_reason(goal):
    hindered = {**QUIET, "waiting_for": "the camera is stale"}
    assert not goal.update(100.1, **hindered)
    assert not goal.update(102.0, **QUIET)
    assert not goal.update(102.1, **hindered)
    assert not goal.update(104.9, **hindered)
    assert goal.update(105.3, **hindered)
    assert goal.outcome == "halted"
    assert "the camera is stale" in goal.message


def test_a_clock_that_was_set_back_does_not_make_a_goal_last(goal):
    hindered = {**QUIET, "waiting_for": "the camera is stale"}
    assert not goal.update(101.0, **hindered)
    assert not goal.update(1.0, **hindered)
    assert not goal.update(3.0, **QUIET)
    assert goal.update(11.1, **QUIET)
    assert goal.outcome == "timeout"
