# SPDX-License-Identifier: Apache-2.0
"""Seconds as floats inside, `builtin_interfaces/Time` on the wire, and the ways between them."""

import math
import struct

from builtin_interfaces.msg import Time


def to_seconds(stamp: Time) -> float:
    """Return a stamp in [s]; a float64 keeps today's wall clock to 0.3 microseconds."""
    return stamp.sec + stamp.nanosec * 1e-9


def to_stamp(seconds: float) -> Time:
    """Return `seconds` [s] as a message that `to_seconds` turns into the very same float.

    Whole seconds are split off first: today's wall clock times 1e9 exceeds a float64's exact integers by a factor
    of 200, and a frame's stamp that comes back a step earlier names the frame before.
    """
    whole = math.floor(seconds)
    carry, nanosec = divmod(round((seconds - whole) * 1e9), 1_000_000_000)
    return Time(sec=whole + carry, nanosec=nanosec)


def is_zero(stamp: Time) -> bool:
    """Return whether a stamp is the message's default, which means "none"."""
    return stamp.sec == 0 and stamp.nanosec == 0


def header_stamp(cdr: bytes) -> Time:
    """Return the stamp of a serialized message that begins with a `std_msgs/Header`, without decoding the rest."""
    sec, nanosec = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return Time(sec=sec, nanosec=nanosec)
