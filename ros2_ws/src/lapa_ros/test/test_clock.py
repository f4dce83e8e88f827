# SPDX-License-Identifier: Apache-2.0
"""A stamp survives the way to seconds and back."""

import random

from builtin_interfaces.msg import Time
from lapa_ros.clock import is_zero, to_seconds, to_stamp


def test_seconds_survive_the_wire_exactly_at_todays_wall_clock():
    rng = random.Random(0)
    for _ in range(2000):
        seconds = to_seconds(Time(sec=1_763_839_173, nanosec=rng.randrange(1_000_000_000)))
        assert to_seconds(to_stamp(seconds)) == seconds


def test_fractions_that_round_up_carry_into_the_seconds():
    assert to_stamp(2.9999999999) == Time(sec=3, nanosec=0)
    assert is_zero(to_stamp(0.0))
