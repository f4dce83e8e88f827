# SPDX-License-Identifier: Apache-2.0
"""The newest observation, once, at the control rate."""

import pytest
from lapa_ros.mailbox import Mailbox


@pytest.fixture
def box():
    return Mailbox(period_s=0.2)


def test_only_the_newest_is_handed_out_and_only_once(box):
    box.put(1.00, "old")
    box.put(1.05, "new")
    assert box.take(0.0).content == "new"
    assert box.take(0.0) is None


def test_the_next_is_due_one_period_later(box):
    taken = []
    for tick in range(21):  # a 20 Hz camera for one second
        box.put(10 + 0.05 * tick, tick)
        if letter := box.take(0.0):
            taken.append(letter.content)
    assert taken == [0, 4, 8, 12, 16, 20]


def test_a_camera_on_an_uneven_grid_still_gives_the_exact_rate(box):
    stamps_s = [0.0, 0.06, 0.10, 0.16, 0.20, 0.26, 0.30, 0.36, 0.40]
    taken = []
    for stamp_s in stamps_s:
        box.put(stamp_s, None)
        if letter := box.take(0.0):
            taken.append(letter.stamp_s)
    assert taken == [0.0, 0.20, 0.40]


def test_after_a_pause_the_grid_begins_anew(box):
    for stamp_s in (0.0, 5.03, 5.10):
        box.put(stamp_s, None)
        box.take(0.0)
    box.put(5.23, "due")
    assert box.take(0.0).content == "due"


def test_restart_forgets_what_came_before(box):
    box.put(1.0, "old scene")
    box.restart(not_before_s=1.5)
    assert box.take(0.0) is None
    box.put(1.4, "too early")
    assert box.take(0.0) is None
    box.put(1.6, "new scene")
    assert box.take(0.0).content == "new scene"


def test_an_older_frame_never_replaces_a_newer_one(box):
    box.put(2.0, "new")
    box.put(1.0, "late")
    assert box.newest().content == "new"


def test_a_clock_that_was_set_back_begins_anew_and_is_said_once(box):
    box.put(1000.0, "old time")
    box.take(0.0)
    box.restart(not_before_s=1000.5)
    said = [box.put(3.0 + 0.05 * tick, tick) for tick in range(10)]
    assert [bool(sentence) for sentence in said] == [False, True] + [False] * 8
    assert "set back by 997" in said[1]
    assert box.take(0.0).content == 9
    box.put(3.65, "next")
    assert box.take(0.0).content == "next"


def test_a_stray_stamp_from_the_past_is_ignored(box):
    box.put(1000.0, "new")
    assert box.put(3.0, "stray") == ""
    box.put(1000.05, "newer")
    assert box.newest().content == "newer"
