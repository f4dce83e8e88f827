# SPDX-License-Identifier: Apache-2.0
"""The arm node with the interbotix backend against the fake driver's process, over DDS."""

import importlib.util
import signal
import sys
import time

import numpy as np
import pytest
from driver_tools import MESSAGES, Person, arm_process, attempt, driver, patient_contract
from lapa_msgs.msg import ArmState
from lapa_ros import qos
from lapa_ros.arm_node import ArmNode
from lapa_ros.interbotix_link import RosDriverLink, load_interfaces, open_topics
from lapa_ros.remote import GraphError
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import String

FIELDS = {
    ("msg", "JointGroupCommand"): {"name": "string", "cmd": "sequence<float>"},
    ("msg", "JointSingleCommand"): {"name": "string", "cmd": "float"},
    ("srv", "TorqueEnable"): {"cmd_type": "string", "name": "string", "enable": "boolean"},
    ("srv", "OperatingModes"): {
        "cmd_type": "string", "name": "string", "mode": "string", "profile_type": "string",
        "profile_velocity": "int32", "profile_acceleration": "int32",
    },
    ("srv", "RegisterValues"): {"cmd_type": "string", "name": "string", "reg": "string", "value": "int32"},
    ("srv", "RobotInfo"): {"cmd_type": "string", "name": "string"},
    ("srv", "Reboot"): {"cmd_type": "string", "name": "string", "enable": "boolean", "smart_reboot": "boolean"},
    ("srv", "MotorGains"): {
        "cmd_type": "string", "name": "string", "kp_pos": "int32", "ki_pos": "int32", "kd_pos": "int32",
        "k1": "int32", "k2": "int32", "kp_vel": "int32", "ki_vel": "int32",
    },
}  # fmt: skip
"""Of interbotix_xs_msgs, humble and jazzy."""


@pytest.mark.parametrize(
    "package",
    [
        "lapa_xs_msgs",
        pytest.param(
            "interbotix_xs_msgs",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("interbotix_xs_msgs") is None,
                reason="Interbotix's own package is not installed; ours stands in for it",
            ),
        ),
    ],
)
def test_the_interfaces_have_the_drivers_fields(package):
    modules = dict(zip(("msg", "srv"), load_interfaces(package), strict=True))
    for (kind, name), fields in FIELDS.items():
        interface = getattr(modules[kind], name)
        message = interface if kind == "msg" else interface.Request
        assert message.get_fields_and_field_types() == fields
    answer = modules["srv"].RobotInfo.Response.get_fields_and_field_types()
    assert list(answer) == [
        "mode", "profile_type", "joint_names", "joint_ids", "joint_lower_limits", "joint_upper_limits",
        "joint_velocity_limits", "joint_sleep_positions", "joint_state_indices", "num_joints", "name",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def contract_file(tmp_path_factory):
    return patient_contract(tmp_path_factory.mktemp("contract"))


@pytest.fixture
def arm(spinner, contract_file):
    overrides = {"backend": "interbotix", "driver_package": MESSAGES, "contract": contract_file,
                 "max_command_age_s": 0.5, "move_speed_rad_s": 1.5,
                 "realtime_priority": 0}  # fmt: skip
    node = ArmNode(
        parameter_overrides=[Parameter(key, value=value) for key, value in overrides.items()]
    )
    assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
    node.trigger_activate()
    return spinner.add(node)


@pytest.fixture
def person(arm, spinner, contract_file):
    return Person(spinner, contract_file)


def test_from_the_sleep_pose_to_work_and_back_and_torque_off(person):
    with driver():
        person.wait_mode(ArmState.MODE_HOLDING)
        assert person.states[-1].measured_joints == pytest.approx(
            person.contract.arm.sleep_rad, abs=1e-3
        )
        person.send()
        person.wait(lambda: "call ~/ready first" in person.states[-1].last_refusal, "a refusal")
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
        with pytest.raises(GraphError, match="call ~/park first"):
            person.call("release")
        person.call("park")
        person.wait_mode(ArmState.MODE_PARKED)
        person.call("release")
        assert person.mode() == ArmState.MODE_PARKED
        person.call("release")
        person.wait(lambda: person.mode() not in (None, ArmState.MODE_PARKED), "limp")


def test_a_driver_that_is_started_again_is_not_moved_until_a_person_clears(person):
    with driver(start="ready") as first:
        person.wait_mode(ArmState.MODE_HOLDING)
        person.stream(lambda: person.mode() == ArmState.MODE_TRACKING, "tracking")
        first.send_signal(signal.SIGINT)
        person.stream(lambda: person.mode() != ArmState.MODE_TRACKING, "a hold")
        person.wait_mode(ArmState.MODE_STOPPED)
    person.joints.clear()
    with driver(start="ready"):
        person.wait(lambda: len(person.joints) > 100, "joint states")
        where_rad = np.array(person.joints[-1].position[:6])
        person.stream(lambda: len(person.joints) > 300, "two seconds")
        assert person.mode() == ArmState.MODE_STOPPED
        np.testing.assert_allclose(person.joints[-1].position[:6], where_rad, atol=1e-6)
        person.wait(lambda: attempt(person.call, "clear"), "the set-up", 10.0)
        person.stream(lambda: person.mode() == ArmState.MODE_TRACKING, "tracking")


@pytest.mark.parametrize(("fault", "limit_s"), [("overload elbow", 1.6), ("dead_bus", 1.9)])
def test_a_motor_fault_stops_the_arm(person, fault, limit_s):
    with driver(start="ready"):
        person.wait_mode(ArmState.MODE_HOLDING)
        person.stream(lambda: person.mode() == ArmState.MODE_TRACKING, "tracking")
        person.inject(fault)
        took_s = person.stream(lambda: person.mode() == ArmState.MODE_STOPPED, "a latched stop")
        print(f"{fault}: {took_s:.2f} s")
        assert took_s < limit_s


def test_an_overloaded_motor_is_rebooted_and_the_arm_goes_on_when_a_person_clears(person):
    """What docs/safety.md tells a person to do."""
    _, services = load_interfaces(MESSAGES)
    with driver(start="ready"):
        person.wait_mode(ArmState.MODE_HOLDING)
        person.inject("overload elbow")
        person.wait_mode(ArmState.MODE_STOPPED)
        assert "elbow: overload" in person.states[-1].reason
        reboot = person.node.create_client(services.Reboot, "reboot_motors")
        assert reboot.wait_for_service(10.0)
        everything = {"cmd_type": "group", "name": "all", "enable": True, "smart_reboot": True}
        reboot.call(services.Reboot.Request(**everything), timeout_sec=5.0)
        person.wait(lambda: attempt(person.call, "clear"), "the set-up", 10.0)
        person.call("ready")
        person.wait_mode(ArmState.MODE_READYING)
        person.wait_mode(ArmState.MODE_HOLDING)
        person.stream(lambda: person.mode() == ArmState.MODE_TRACKING, "tracking")


def test_somebody_else_who_commands_the_arm_stops_it(person):
    messages, _ = load_interfaces(MESSAGES)
    with driver(start="ready"):
        person.wait_mode(ArmState.MODE_HOLDING)
        person.node.create_publisher(
            messages.JointGroupCommand, "commands/joint_group", qos.JOINT_COMMANDS
        )
        person.wait_mode(ArmState.MODE_STOPPED, 5.0)
        assert "2 nodes command the arm" in person.states[-1].reason


def test_whoever_else_can_move_the_arm_or_speak_for_it_is_seen(spinner):
    """Regression pinned: the driver also moves joints by `joint_single` and `joint_trajectory`."""
    messages, _ = load_interfaces(MESSAGES)
    node, somebody = spinner.add(LifecycleNode("commander")), spinner.add(Node("somebody"))
    link = RosDriverLink(node, open_topics(node, MESSAGES))
    somebody.create_publisher(JointState, "joint_states", qos.JOINT_STATES)  # the driver
    spinner.wait(lambda: node.count_publishers("joint_states"), "the driver")
    assert link.others() == ""
    for topic, kind in (
        ("joint_states", JointState),
        ("commands/joint_group", messages.JointGroupCommand),
        ("commands/joint_single", messages.JointSingleCommand),
        ("commands/joint_trajectory", String),
    ):
        publisher = somebody.create_publisher(kind, topic, qos.JOINT_COMMANDS)
        spinner.wait(lambda topic=topic: topic in link.others(), topic, 5.0)
        somebody.destroy_publisher(publisher)
        spinner.wait(lambda: not link.others(), "nobody", 5.0)


def test_without_the_drivers_messages_the_backend_says_what_to_install(
    ros_domain, capfd, monkeypatch
):
    package = (
        "interbotix_xs_msgs"  # hidden also where it is installed, and was loaded by a test before
    )
    for name in {package, *(name for name in sys.modules if name.startswith(f"{package}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    settings = {"backend": "interbotix", "driver_package": package, "realtime_priority": 0}
    node = ArmNode(
        parameter_overrides=[Parameter(key, value=value) for key, value in settings.items()]
    )
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert "interbotix_ros_core" in capfd.readouterr().err
    node.destroy_node()


def test_a_real_arm_refuses_simulated_time(ros_domain, capfd):
    overrides = {"backend": "interbotix", "use_sim_time": True}
    node = ArmNode(
        parameter_overrides=[Parameter(key, value=value) for key, value in overrides.items()]
    )
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert "real clock" in capfd.readouterr().err
    node.destroy_node()


def still(person, moving_rad=2e-4):
    """Return whether the joints have not moved over the newest 0.1 s."""
    joints_rad = np.array([message.position[:6] for message in person.joints[-10:]])
    return len(joints_rad) == 10 and np.ptp(joints_rad, axis=0).max() < moving_rad


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_arm_node_that_ends_in_a_motion_leaves_an_arm_that_stands_still(
    spinner, contract_file, how
):
    """Killed, it leaves the last target, one tick away; asked to end, it holds the measured joints first."""
    person = Person(spinner, contract_file)
    with driver(), arm_process(contract_file) as process:
        person.wait_mode(ArmState.MODE_HOLDING)
        person.call("ready")
        person.wait_mode(ArmState.MODE_READYING)
        spinner.wait(
            lambda: person.states[-1].measured_joints[1] > -1.0, "the middle of the motion"
        )
        process.send_signal(how)
        begun_s = time.monotonic()
        spinner.wait(lambda: still(person), "an arm that stands still", 5.0)
        took_s = time.monotonic() - begun_s
        process.wait(10.0)
        where_rad = np.array(person.joints[-1].position[:6])
        time.sleep(1.0)
        assert np.abs(np.array(person.joints[-1].position[:6]) - where_rad).max() < 1e-3, (
            "torque is on"
        )
        assert where_rad[1] < -0.3, "it stopped on the way"
    print(f"arm {how.name}: still after {took_s:.2f} s")
    assert took_s < 0.6


def test_an_interrupted_arm_parks_before_it_ends_and_its_torque_stays_on(spinner, contract_file):
    person = Person(spinner, contract_file)
    with driver(start="ready"), arm_process(contract_file, speed_rad_s=1.5, park=True) as process:
        person.wait_mode(ArmState.MODE_HOLDING)
        process.send_signal(signal.SIGINT)
        person.wait_mode(ArmState.MODE_PARKING)
        process.send_signal(signal.SIGINT)
        assert process.wait(15.0) == 0
        sleep_rad = person.contract.arm.sleep_rad
        np.testing.assert_allclose(person.joints[-1].position[:6], sleep_rad, atol=1e-2)


def test_a_person_who_takes_over_has_the_arm_at_once(person):
    with driver(start="ready"):
        person.wait_mode(ArmState.MODE_HOLDING)
        person.stream(lambda: person.mode() == ArmState.MODE_TRACKING, "tracking")
        begun_s = time.monotonic()
        person.send(0.02, source="operator")
        person.wait(lambda: person.states[-1].last_applied_source == "operator", "the takeover")
        took_s = time.monotonic() - begun_s
        refused = person.states[-1].refused
        person.stream(lambda: person.states[-1].refused >= refused + 3, "refusals")
        assert "operator has the arm" in person.states[-1].last_refusal
        person.stream(lambda: person.states[-1].last_applied_source == "policy", "the handover")
    print(f"takeover: {took_s:.3f} s")
    assert took_s < 0.3


def test_a_stuck_joint_stops_the_arm_where_it_is(person):
    with driver(start="ready"):
        person.wait_mode(ArmState.MODE_HOLDING)
        person.inject("stuck shoulder")
        time.sleep(0.1)
        person.call("park")
        begun_s = time.monotonic()
        person.wait_mode(ArmState.MODE_STOPPED)
        took_s = time.monotonic() - begun_s
        person.wait(
            lambda: np.abs(np.subtract(person.states[-1].commanded_joints, person.states[-1].measured_joints)).max()
            < 0.02, "targets where the arm is"
        )  # fmt: skip
        assert "do not follow" in person.states[-1].reason
    print(f"stuck: {took_s:.2f} s")
    assert took_s < 1.5


def test_joint_states_that_stop_make_the_arm_hold(person):
    with driver(start="ready"):
        person.wait_mode(ArmState.MODE_HOLDING)
        person.stream(lambda: person.mode() == ArmState.MODE_TRACKING, "tracking")
        person.inject("silent")
        took_s = person.stream(lambda: person.mode() != ArmState.MODE_TRACKING, "a hold")
    print(f"silent: {took_s:.2f} s")
    assert took_s < person.contract.max_joint_state_age_s + 0.25
