# SPDX-License-Identifier: Apache-2.0
"""Late messages and clocks that were set back are told apart."""

import pytest
from lapa_ros.stamps import MAX_LATE_S, Arrival, StampOrder

IN_ORDER, LATE, ANEW = Arrival.IN_ORDER, Arrival.LATE, Arrival.ANEW


@pytest.mark.parametrize(
    ("stamps_s", "expected"),
    [
        ([1.0, 1.1, 1.1, 1.2], [IN_ORDER] * 4),
        ([1.0, 1.2, 1.1, 1.3], [IN_ORDER, IN_ORDER, LATE, IN_ORDER]),
        ([100.0, 0.0, 100.1, 0.1, 100.2], [IN_ORDER, LATE, IN_ORDER, LATE, IN_ORDER]),
        ([100.0, 0.0, 0.0, 0.0], [IN_ORDER, LATE, LATE, LATE]),  # a driver that does not stamp
        ([100.0, 0.0, 0.1, 0.2], [IN_ORDER, LATE, ANEW, IN_ORDER]),  # simulated time began anew
        ([100.0, 99.5, 99.6, 100.1], [IN_ORDER, LATE, LATE, IN_ORDER]),  # heals by itself
        ([100.0, 5000.0, 100.1, 100.2], [IN_ORDER, IN_ORDER, LATE, ANEW]),  # one from the future
    ],
)
def test_stamps_are_judged(stamps_s, expected):
    order = StampOrder()
    assert [order.judge(stamp_s) for stamp_s in stamps_s] == expected
    assert (order.num_late, order.num_anew) == (expected.count(LATE), expected.count(ANEW))


def test_the_size_of_the_step_is_known():
    order = StampOrder()
    for stamp_s in (50.0, 10.0, 10.5):
        order.judge(stamp_s)
    assert order.step_s == pytest.approx(39.5)


def test_a_clock_set_back_by_less_than_the_limit_is_not_refused_for_longer_than_it():
    order = StampOrder()
    order.judge(100.0)
    back_s = 100.0 - 0.9 * MAX_LATE_S
    verdicts = [order.judge(back_s + 0.05 * k) for k in range(20)]
    assert verdicts[-1] is IN_ORDER
