# SPDX-License-Identifier: Apache-2.0
"""What joint states become a measurement."""

import pytest
from lapa_ros.arm_backends import GRIPPER, TopicBackend

from lapa_core.errors import ActionError


@pytest.fixture
def backend(contract):
    return TopicBackend(contract, lambda names, positions: None)


@pytest.fixture
def receive(backend, contract):
    names = [*contract.arm.joint_names, GRIPPER]

    def receive(waist_rad, stamp_s):
        return backend.receive(names, [waist_rad, 0.0, 0.0, 0.0, 0.0, 0.0, 0.05], stamp_s)

    return receive


def test_joints_are_found_by_name(backend, contract):
    names = [GRIPPER, *reversed(contract.arm.joint_names), "another"]
    backend.receive(names, [0.03, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 9.0], 1.0)
    assert backend.measured().joints_rad.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert backend.measured().gripper == 0.0


@pytest.mark.parametrize(
    ("names", "positions", "words"),
    [
        (["waist"], [0.0, 1.0], "1 names and 2 positions"),
        (["waist"], [0.0], "lack"),
        (["waist", "waist"], [0.0, 1.0], "name a joint twice"),
        (None, [float("nan"), 0, 0, 0, 0, 0, 0], "not finite"),
    ],
)
def test_unusable_joint_states_leave_the_measurement(
    backend, receive, contract, names, positions, words
):
    receive(0.1, 1.0)
    with pytest.raises(ActionError, match=words):
        backend.receive(names or [*contract.arm.joint_names, GRIPPER], positions, 2.0)
    assert backend.measured().stamp_s == 1.0


def test_an_older_measurement_never_replaces_a_newer_one(backend, receive):
    receive(0.1, 1000.0)
    for stamp_s in (999.98, 999.99, 3.0):
        receive(0.9, stamp_s)
    assert backend.measured().joints_rad[0] == 0.1
    assert backend.measured().stamp_s == 1000.0
    assert (backend.order.num_late, backend.order.num_anew) == (3, 0)


def test_a_clock_that_was_set_back_is_believed_and_counted(backend, receive):
    receive(0.1, 1000.0)
    said = [receive(0.2 + tick, 3.0 + 0.01 * tick) for tick in range(4)]
    assert [bool(sentence) for sentence in said] == [False, True, False, False]
    assert backend.measured().joints_rad[0] == pytest.approx(3.2)
    assert (backend.order.num_late, backend.order.num_anew) == (1, 1)


def test_an_unusable_message_does_not_move_the_clock(backend, receive, contract):
    receive(0.1, 1000.0)
    with pytest.raises(ActionError):
        backend.receive(["waist"], [0.0], 9000.0)
    receive(0.2, 1000.01)
    assert backend.measured().joints_rad[0] == 0.2
