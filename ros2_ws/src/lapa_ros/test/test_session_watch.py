# SPDX-License-Identifier: Apache-2.0
"""What an operator is told of an open episode: nothing when all is well, and each shortcoming with its limit."""

from dataclasses import replace

import pytest
from lapa_ros.recording_quality import Quality, TopicQuality
from lapa_ros.session_watch import FEWEST_ROWS, describe, shortcomings

from lapa_core.data.recorded_rows import RowLimits

GOOD = Quality(
    rows=40, row_rate_hz=5.0, row_gap_s=0.21, frame_age_p95_s=0.033, age_max_s=0.05, still_share=0.1,
    saturated_share=0.05, topics={"/joint_states": TopicQuality(rate_hz=99.8, gap_s=0.02, silent_s=0.0)},
)  # fmt: skip


def test_a_whole_episode_has_no_shortcomings():
    assert shortcomings(GOOD, RowLimits(), 5.0) == {}
    assert describe(GOOD) == (
        "40 rows at 5.00 Hz, longest gap 0.21 s, frame age p95 33 ms, 10% still, 5% at the caps, /joint_states 99.8 Hz"
    )


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("gap", {"row_gap_s": 1.4}, "1.40 s lie between two deltas, at most 1 s may"),
        ("stale", {"age_max_s": 0.42}, "0.42 s old at its delta, at most 0.3 s"),
        ("unseen", {"unseen": 3}, "3 of its 43 deltas came before...5%"),
        ("rate", {"row_rate_hz": 3.1}, "at 3.10 Hz, not at 5 Hz"),
        ("still", {"still_share": 0.6}, "60% of it, at most 50%"),
        ("saturated", {"saturated_share": 0.7}, "70% of its deltas...at most 50%"),
    ],
)
def test_each_shortcoming_is_told_by_itself(name, change, words):
    found = shortcomings(replace(GOOD, **change), RowLimits(), 5.0)
    assert list(found) == [name]
    assert words.split("...")[0] in found[name]
    assert words.split("...")[-1] in found[name]


def test_shares_and_rates_wait_for_rows_and_a_gap_does_not():
    early = replace(GOOD, rows=FEWEST_ROWS - 1, still_share=1.0, row_rate_hz=1.0)
    assert shortcomings(early, RowLimits(), 5.0) == {}
    assert list(shortcomings(replace(early, row_gap_s=2.0), RowLimits(), 5.0)) == ["gap"]


def test_an_episode_without_rows_says_what_comes():
    empty = Quality(rows=0, topics=GOOD.topics)
    assert shortcomings(empty, RowLimits(), 5.0) == {}
    assert describe(empty) == "no rows yet, /joint_states 99.8 Hz"
    blind = replace(empty, unseen=4)
    assert describe(blind).endswith(", 4 deltas before the first frame or pose")
