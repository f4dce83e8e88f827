# SPDX-License-Identifier: Apache-2.0
"""Seconds as floats inside, `builtin_interfaces/Time` on the wire; the two conversions and nothing else."""

from builtin_interfaces.msg import Time


def to_seconds(stamp: Time) -> float:
    """Return a stamp in [s]; a float64 keeps today's wall clock to 0.3 microseconds."""
    return stamp.sec + stamp.nanosec * 1e-9


def to_stamp(seconds: float) -> Time:
    """Return `seconds` [s] as a message."""
    total_ns = round(seconds * 1e9)
    return Time(sec=total_ns // 1_000_000_000, nanosec=total_ns % 1_000_000_000)


def is_zero(stamp: Time) -> bool:
    """Return whether a stamp is the message's default, which means "none"."""
    return stamp.sec == 0 and stamp.nanosec == 0
