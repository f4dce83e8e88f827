# SPDX-License-Identifier: Apache-2.0
"""Accuracy beside the commonest id, and errors in metres and radians, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lapa_core.actions.bins import ActionBins
from lapa_core.vla.metrics import action_error, decode_rows, majority_share, token_report


def test_nine_of_ten_right_is_worth_nothing_where_nine_of_ten_are_the_same():
    ids = np.array([[0, 1]] * 9 + [[1, 2]])
    report = token_report(np.tile([0, 2], (10, 1)), ids, ("still", "moving"))
    assert report.accuracy == {"still": 0.9, "moving": 0.1}
    assert report.majority == {"still": 0.9, "moving": 0.9}
    assert "still       90.0 % right,  90.0 % by the commonest" in str(report)


def test_the_commonest_id_is_counted_per_token():
    assert majority_share(np.array([[3, 0], [3, 1], [2, 2], [3, 2]])).tolist() == [0.75, 0.5]


def test_errors_are_lengths_in_metres_and_radians():
    true = np.zeros((2, 7), np.float32)
    true[1, :7] = (0.02, 0, 0, 0, 0, 0.2, 1.0)
    predicted = np.zeros((2, 7))
    predicted[0, :3] = (0.03, 0.04, 0.0)
    predicted[1] = true[1]
    error = action_error(predicted, true)
    assert error.translation_m == pytest.approx(0.05 / 2)
    assert error.rotation_rad == pytest.approx(0.0, abs=1e-8)
    assert error.gripper == 0.0
    assert error.translation_m_of_mean == pytest.approx(0.01)
    assert error.rotation_rad_of_mean == pytest.approx(0.1)
    assert error.gripper_of_mean == pytest.approx(0.5)


def test_rows_of_bins_decode_as_single_ones_do():
    rng = np.random.default_rng(0)
    bins = ActionBins.fit(rng.normal(0, 0.02, (300, 7)), 16)
    rows = bins.encode(rng.normal(0, 0.02, (20, 7)))
    assert np.array_equal(decode_rows(bins, rows), [bins.decode(row) for row in rows])
