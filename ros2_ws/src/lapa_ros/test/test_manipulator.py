# SPDX-License-Identifier: Apache-2.0
"""The arm node through Interbotix's own `InterbotixManipulatorXS`, against the fake driver with their messages."""

import signal
import sys
import time

import numpy as np
import pytest
from driver_tools import Person, arm_process, attempt, driver, patient_contract
from lapa_msgs.msg import ArmState
from lapa_ros.arm_node import ArmNode
from lapa_ros.interbotix_manipulator import PACKAGE, Manipulator
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter


def test_without_the_package_the_backend_says_what_to_install(ros_domain, capfd, monkeypatch):
    for name in {PACKAGE, *(name for name in sys.modules if name.startswith(f"{PACKAGE}."))}:
        monkeypatch.setitem(sys.modules, name, None)  # hidden also where it is installed
    node = ArmNode(parameter_overrides=[Parameter("backend", value="interbotix")])
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    said = capfd.readouterr().err
    assert "interbotix_ros_toolboxes" in said
    assert "set driver_package to interbotix_xs_msgs" in said
    node.destroy_node()


@pytest.fixture
def installed():
    pytest.importorskip(
        f"{PACKAGE}.xs_robot.arm",
        reason="Interbotix's own Python package is not installed; the bare messages stand in for it",
    )


@pytest.fixture
def person(installed, spinner, tmp_path):
    return Person(spinner, patient_contract(tmp_path))


def arm_of(person, **settings):
    return arm_process(person.contract_file, package=PACKAGE, **settings)


def test_from_the_sleep_pose_to_work_and_back_and_torque_off(person):
    with driver(), arm_of(person):
        person.wait_mode(ArmState.MODE_HOLDING)
        person.call("ready")
        person.wait_mode(ArmState.MODE_READYING)
        person.wait_mode(ArmState.MODE_HOLDING)
        before_m = person.states[-1].measured_pose.position.x
        for _ in range(5):
            person.send()
            time.sleep(0.2)
        person.wait(
            lambda: abs(person.states[-1].measured_pose.position.x - before_m - 0.05) < 3e-3,
            "five steps",
        )
        person.call("stop")
        person.call("clear")
        person.call("park")
        person.wait_mode(ArmState.MODE_PARKED)
        person.call("release")
        person.call("release")
        person.wait(lambda: person.mode() != ArmState.MODE_PARKED, "limp")


def test_a_driver_that_is_started_again_is_not_moved_until_a_person_clears(person):
    with driver(start="ready") as first, arm_of(person):
        person.wait_mode(ArmState.MODE_HOLDING)
        person.stream(lambda: person.mode() == ArmState.MODE_TRACKING, "tracking")
        first.send_signal(signal.SIGINT)
        person.stream(lambda: person.mode() == ArmState.MODE_STOPPED, "a latched stop")
        first.wait(10.0)
        with driver(start="ready"):
            person.wait(lambda: attempt(person.call, "clear"), "the set-up", 20.0)
            person.stream(lambda: person.mode() == ArmState.MODE_TRACKING, "tracking")


def test_an_interrupted_arm_parks_before_it_ends(person):
    with (
        driver(start="ready"),
        arm_of(person, speed_rad_s=1.5, park=True) as process,
    ):
        person.wait_mode(ArmState.MODE_HOLDING)
        process.send_signal(signal.SIGINT)
        assert process.wait(15.0) == 0
        sleep_rad = person.contract.arm.sleep_rad
        np.testing.assert_allclose(person.joints[-1].position[:6], sleep_rad, atol=1e-2)


def test_a_node_that_is_cleaned_up_and_configured_anew_has_one_manipulator(person):
    with driver(start="ready"), arm_of(person):
        person.wait_mode(ArmState.MODE_HOLDING)
        before = person.node.get_node_names().count("arm_driver")
        change = person.node.create_client(ChangeState, "arm/change_state")
        assert change.wait_for_service(10.0)
        for _ in range(2):
            for transition in (
                Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
                Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE,
            ):  # fmt: skip
                request = ChangeState.Request()
                request.transition.id = transition
                assert change.call(request, timeout_sec=20.0).success
        person.states.clear()
        person.wait_mode(ArmState.MODE_HOLDING)
        person.stream(lambda: person.mode() == ArmState.MODE_TRACKING, "tracking")
        assert person.node.get_node_names().count("arm_driver") == before


@pytest.fixture
def node(person, spinner, monkeypatch):
    monkeypatch.setattr(Manipulator, "LIMIT_S", 2.0)
    settings = {"backend": "interbotix", "contract": "wx250s", "realtime_priority": 0}
    overrides = [Parameter(key, value=value) for key, value in settings.items()]
    return spinner.add(ArmNode(parameter_overrides=overrides))


def test_a_driver_that_is_not_there_is_not_waited_for_without_end(node, capfd):
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert "set_operating_modes was waited for 2 s in vain" in capfd.readouterr().err


def test_a_driver_of_other_messages_is_not_waited_for_without_end(node, person, capfd):
    with driver(messages="lapa_xs_msgs"):
        person.wait(lambda: person.joints, "joint states")
        assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert "speaks other messages: see driver_package" in capfd.readouterr().err


def test_an_interrupt_ends_the_wait_for_a_driver(person):
    with arm_of(person) as process:
        person.wait(lambda: "arm_driver" in person.node.get_node_names(), "the wait")
        begun_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(5.0) == 1
    assert time.monotonic() - begun_s < 3.0


def test_a_driver_that_hangs_is_not_waited_for_without_end(node, person, capfd):
    with driver() as process:
        person.wait(lambda: person.joints, "joint states")
        process.send_signal(signal.SIGSTOP)
        assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert "joint states or answer was waited for" in capfd.readouterr().err
    person.wait(lambda: "arm_driver" not in person.node.get_node_names(), "its leave")


def test_another_model_is_refused(person):
    with driver(), arm_process("vx300s", package=PACKAGE):
        person.wait_mode(ArmState.MODE_WAITING)
        person.wait(lambda: "another robot_model" in person.states[-1].reason, "a reason")
