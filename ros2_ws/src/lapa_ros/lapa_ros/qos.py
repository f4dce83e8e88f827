# SPDX-License-Identifier: Apache-2.0
"""The quality-of-service profiles of the graph, each with its reason. Nodes use these names and no numbers."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliable: bool, depth: int, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


CAMERA_DRIVER = _profile(reliable=True, depth=5)
"""What our camera publishes: reliable, as REP 2003 asks of drivers, so that any subscriber matches."""

CAMERA = _profile(reliable=False, depth=1)
"""What a policy subscribes with: the newest frame or none. Best effort matches every driver; a reliable
subscriber would silently never match a best-effort camera."""

RECORDED_DEVICE = _profile(reliable=False, depth=30)
"""What the recorder subscribes to cameras and `joy` with: matches every driver, and rides out half a second of disk."""

RECORDED = _profile(reliable=True, depth=200)
"""What the recorder subscribes to everything else with: nothing is to be lost."""

JOINT_STATES = _profile(reliable=True, depth=10)
"""As the Interbotix driver publishes; reliable subscribers need a reliable publisher."""

JOINT_COMMANDS = _profile(reliable=True, depth=1)
"""A stream of absolute targets: only the newest one matters."""

DELTA = _profile(reliable=True, depth=10)
"""Each delta applies once and counts, so none may be lost on the way; old ones are refused by their stamp."""

INPUT = _profile(reliable=False, depth=10)
"""What a hand does: matches every driver's `joy`; a few readings wait, so that no press of a button is missed."""

STATE = _profile(reliable=True, depth=1, latched=True)
"""Arm, recorder and task states: a late subscriber gets the newest at once."""

STATES = _profile(reliable=True, depth=60, latched=True)
"""Arm states for a subscriber that must not miss a moment in which the arm did not obey: half a second of them at
their highest rate. After a longer pause the arm counts as silent."""

INSTRUCTION = STATE
"""An instruction stays valid until the next: a policy that starts later still gets it."""

INSTRUCTION_LIVE = _profile(reliable=True, depth=1)
"""The same topic once more, for publishers that do not latch: a latched subscriber would never match them."""

EVENTS = _profile(reliable=True, depth=100)
"""Notes for the recording, rare and small."""

DIAGNOSTICS = _profile(reliable=True, depth=10)
"""As the ROS diagnostics tools expect (REP 107)."""
