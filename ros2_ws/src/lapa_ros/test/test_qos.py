# SPDX-License-Identifier: Apache-2.0
"""Publishers and subscribers of the graph match; a camera of either kind is seen."""

import pytest
from lapa_ros import qos
from rclpy.qos import QoSCompatibility, qos_check_compatible, qos_profile_sensor_data

PAIRS = [
    (qos.CAMERA_DRIVER, qos.CAMERA),
    (qos_profile_sensor_data, qos.CAMERA),
    (qos_profile_sensor_data, qos.RECORDED_DEVICE),
    (qos.JOINT_STATES, qos.RECORDED_DEVICE),
    (qos.DELTA, qos.DELTA),
    (qos.DELTA, qos.RECORDED),
    (qos.STATE, qos.STATE),
    (qos.STATE, qos.STATES),
    (qos.STATE, qos.RECORDED),
    (qos.JOINT_STATES, qos.RECORDED),
    (qos.JOINT_COMMANDS, qos.JOINT_COMMANDS),
    (qos.EVENTS, qos.RECORDED),
    (qos.JOINT_STATES, qos.INPUT),
    (qos_profile_sensor_data, qos.INPUT),
]


@pytest.mark.parametrize(("publisher", "subscriber"), PAIRS)
def test_profiles_match(publisher, subscriber):
    compatibility, reason = qos_check_compatible(publisher, subscriber)
    assert compatibility != QoSCompatibility.ERROR, reason


def test_a_reliable_subscriber_would_miss_a_best_effort_camera():
    compatibility, _ = qos_check_compatible(qos_profile_sensor_data, qos.RECORDED)
    assert compatibility == QoSCompatibility.ERROR
