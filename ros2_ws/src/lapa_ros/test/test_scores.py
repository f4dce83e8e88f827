# SPDX-License-Identifier: Apache-2.0
"""Figures of an evaluation."""

import json
import math

import numpy as np
import pytest
from lapa_ros.scores import (
    EpisodeScore,
    percentiles_ms,
    success_rate,
    summary,
    table,
    write_summary,
)


def score(family, outcome, seed=0):
    return EpisodeScore(
        seed=seed, family=family, instruction="do it", outcome=outcome, steps=5, duration_s=1.0, path_m=0.1
    )  # fmt: skip


SCORES = [score("point", "success", 1), score("point", "timeout", 2), score("push", "success", 3)]


def test_success_rate_and_its_binomial_standard_error():
    assert success_rate(SCORES[:2]) == (0.5, math.sqrt(0.25 / 2))
    assert success_rate(SCORES[2:]) == (1.0, 0.0)
    assert all(math.isnan(value) for value in success_rate([]))


def test_percentiles_are_in_milliseconds_and_none_without_data():
    latencies_s = np.arange(1, 101) / 1000
    assert percentiles_ms(latencies_s) == {"p50": 50.5, "p99": 99.01}
    assert percentiles_ms([]) == {"p50": None, "p99": None}


def test_summary_counts_per_family_and_survives_json(tmp_path):
    figures = summary(SCORES, [0.01, 0.02], applied=9, refused=2)
    write_summary(tmp_path / "summary.json", figures)
    read = json.loads((tmp_path / "summary.json").read_text())
    assert (read["episodes"], read["successes"], read["applied"], read["refused"]) == (3, 2, 9, 2)
    assert read["families"]["point"] == {
        "episodes": 2, "successes": 1, "success_rate": 0.5, "standard_error": pytest.approx(0.3536),
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("latencies_s", [[], [0.01]])
def test_the_table_shows_every_family_and_the_total(latencies_s):
    text = table(summary(SCORES, latencies_s, applied=9, refused=2))
    for word in ("point", "push", "all", "67%", "9 applied, 2 refused"):
        assert word in text
    assert ("not measured" in text) == (not latencies_s)


def test_a_table_of_nothing_does_not_fail():
    assert "nan" in table(summary([], [], applied=0, refused=0))
