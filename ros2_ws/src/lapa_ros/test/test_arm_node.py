# SPDX-License-Identifier: Apache-2.0
"""The arm node over real DDS, with the dry-run arm."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lapa_msgs.msg import ArmState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_ros import qos
from lapa_ros.arm_backends import GRIPPER
from lapa_ros.arm_logic import ArmLogic
from lapa_ros.arm_node import ArmNode
from lapa_ros.clock import to_stamp
from lapa_ros.deltas import to_message
from lapa_ros.lifecycle import _wind_down
from lapa_ros.remote import GraphError, call, wait_future
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.data.confirmation import applied_deltas


class Peer:
    """The rest of the graph, as the arm sees it."""

    def __init__(self, spinner, contract):
        self._spinner, self._contract = spinner, contract
        self.node = spinner.add(Node("peer"))
        self.states: list[ArmState] = []
        self.sequence = 0
        self._publisher = self.node.create_publisher(DeltaMsg, "delta", qos.DELTA)
        self.node.create_subscription(ArmState, "arm_state", self.states.append, qos.STATE)
        self._clients = {
            name: self.node.create_client(Trigger, f"arm/{name}")
            for name in ("stop", "clear", "hold", "park", "ready", "release")
        }
        self._change = self.node.create_client(ChangeState, "arm/change_state")
        assert self._change.wait_for_service(10.0)
        spinner.wait(
            lambda: self._publisher.get_subscription_count() and self.states, "the arm node"
        )
        self.wait_mode(ArmState.MODE_HOLDING)

    def send(self, values=(0.01, 0, 0, 0, 0, 0, 0), *, sequence=None, age_s=0.0):
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        now_s = self.node.get_clock().now().nanoseconds * 1e-9 - age_s
        message = to_message(
            EndEffectorDelta.from_array((0, 0, 0, 0, 0, 0, 0)), source="policy", sequence=sequence,
            stamp_s=now_s, observation_s=now_s, contract_hash=self._contract.hash,
        )  # fmt: skip
        move, turn = message.translation, message.rotation
        move.x, move.y, move.z, turn.x, turn.y, turn.z, message.gripper = map(float, values)
        self._publisher.publish(message)

    def change(self, transition):
        """Change the arm's state by its service: entities must not go while an executor waits for them."""
        request = ChangeState.Request(transition=Transition(id=transition))
        assert wait_future(self._change.call_async(request), "change_state", 10.0).success

    def call(self, name):
        return call(self._clients[name], Trigger.Request())

    def ask(self, name):
        """Call a service without waiting; return what its answer comes in."""
        return self._clients[name].call_async(Trigger.Request())

    def wait_mode(self, mode):
        self._spinner.wait(lambda: self.states and self.states[-1].mode == mode, f"mode {mode}")

    def wait_counts(self, applied, refused):
        self._spinner.wait(
            lambda: (self.states[-1].applied, self.states[-1].refused) == (applied, refused),
            f"{applied} applied and {refused} refused",
        )


@pytest.fixture
def arm(spinner):
    """An arm that does not mind a busy machine; what is stale in the tests is a second old."""
    overrides = {"backend": "dry_run", "max_command_age_s": 0.5}
    node = ArmNode(
        parameter_overrides=[Parameter(key, value=value) for key, value in overrides.items()]
    )
    node.trigger_configure()
    node.trigger_activate()
    spinner.add(node)
    return node


@pytest.fixture
def peer(arm, spinner, contract):
    return Peer(spinner, contract)


def test_a_delta_moves_the_arm_and_its_latency_is_reported(peer, spinner):
    before_m = peer.states[-1].commanded_pose.position.x
    peer.send()
    peer.wait_counts(1, 0)
    peer.wait_mode(ArmState.MODE_TRACKING)
    state = peer.states[-1]
    assert state.commanded_pose.position.x == pytest.approx(before_m + 0.01, abs=1e-6)
    assert state.last_applied_source == "policy"
    assert state.last_applied_sequence == 1
    assert 0.0 < state.last_latency_s < 0.5
    spinner.wait(
        lambda: abs(peer.states[-1].measured_pose.position.x - before_m - 0.01) < 1e-3, "the move"
    )


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"values": (float("nan"), 0, 0, 0, 0, 0, 0)}, "finite"),
        ({"values": (0.3, 0, 0, 0, 0, 0, 0)}, "per step"),
        ({"age_s": 1.0}, "stale"),
        ({"sequence": 7}, "repeated"),
        ({"sequence": 3}, "out of order"),
    ],
)
def test_bad_deltas_are_refused_and_the_arm_holds(peer, bad, reason):
    peer.sequence = 6
    peer.send()
    peer.wait_counts(1, 0)
    peer.send(**bad)
    peer.wait_counts(1, 1)
    assert reason in peer.states[-1].last_refusal
    assert peer.states[-1].mode == ArmState.MODE_HOLDING
    assert reason in peer.states[-1].reason


def test_without_commands_the_watchdog_holds(peer):
    peer.send()
    peer.wait_mode(ArmState.MODE_TRACKING)
    peer.wait_mode(ArmState.MODE_HOLDING)
    assert "watchdog" in peer.states[-1].reason


def test_stop_is_latched_until_clear(peer):
    assert peer.call("stop").success
    peer.send()
    peer.wait_counts(0, 1)
    assert peer.states[-1].mode == ArmState.MODE_STOPPED
    with pytest.raises(GraphError, match="clear"):
        peer.call("park")
    assert peer.call("clear").success
    peer.send()
    peer.wait_counts(1, 1)


@pytest.mark.parametrize(
    ("before", "asked", "mode", "reason"),
    [
        (["stop"], ["clear", "stop"], ArmState.MODE_STOPPED, "stopped by a person"),
        ([], ["stop", "clear"], ArmState.MODE_STOPPED, "stopped by a person"),
        ([], ["ready", "hold"], ArmState.MODE_HOLDING, "held by request"),
        ([], ["park", "hold"], ArmState.MODE_HOLDING, "held by request"),
    ],
)
def test_of_requests_that_wait_together_what_ends_a_motion_is_served_last(
    arm, peer, spinner, before, asked, mode, reason
):
    """Regression pinned: services are served as they were made, not as they were asked; a stop was cleared again."""
    for name in before:
        peer.call(name)
    spinner.hang(arm)
    answers = [peer.ask(name) for name in asked]
    time.sleep(0.3)  # all of them lie there
    spinner.resume(arm)
    spinner.wait(lambda: all(answer.done() for answer in answers), "the answers")
    time.sleep(0.3)  # longer than the move to the ready pose takes
    assert peer.states[-1].mode == mode
    assert reason in peer.states[-1].reason


def test_a_motion_that_was_asked_of_an_arm_node_that_hung_does_not_start_when_it_goes_on(
    arm, peer, spinner
):
    """Regression pinned: by then nobody expected it; two requests for `release` would have cut the torque."""
    assert peer.call("hold").success
    spinner.hang(arm)
    answers = [peer.ask(name) for name in ("ready", "park", "release", "release")]
    time.sleep(1.2 * ArmLogic.STANDSTILL_S)
    spinner.resume(arm)
    went_on_s = time.monotonic()
    spinner.wait(lambda: all(answer.done() for answer in answers), "the answers")
    print(
        f"asked of a hung arm node: refused {time.monotonic() - went_on_s:.3f} s after it went on"
    )
    for answer in answers:
        assert not answer.result().success
        assert "ask again" in answer.result().message
    assert peer.states[-1].mode == ArmState.MODE_HOLDING
    time.sleep(1.2 * ArmLogic.LATE_S)
    assert peer.call("park").success


def test_park_then_ready(peer):
    assert peer.call("park").success
    peer.wait_mode(ArmState.MODE_PARKED)
    peer.send()
    peer.wait_counts(0, 1)
    assert peer.call("ready").success
    peer.wait_mode(ArmState.MODE_HOLDING)
    peer.send()
    peer.wait_counts(1, 1)


def test_diagnostics_tell_how_the_arm_is_once_a_second(peer, spinner):
    statuses = []
    peer.node.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda array: statuses.extend(array.status),
        qos.DIAGNOSTICS,
    )
    peer.call("stop")
    spinner.wait(
        lambda: any("stopped by a person" in status.message for status in statuses),
        "diagnostics",
    )
    status = statuses[-1]
    assert (status.name, status.hardware_id, status.level) == (
        "arm",
        "wx250s_sim",
        DiagnosticStatus.WARN,
    )
    assert {"mode", "applied", "refused"} <= {value.key for value in status.values}


def test_an_inactive_arm_refuses_services_and_applies_nothing(peer):
    peer.change(Transition.TRANSITION_DEACTIVATE)
    with pytest.raises(GraphError, match="not active"):
        peer.call("ready")
    peer.states.clear()
    peer.change(Transition.TRANSITION_ACTIVATE)
    peer.wait_mode(ArmState.MODE_HOLDING)
    peer.send()
    peer.wait_counts(1, 0)


def test_a_latched_stop_outlives_a_new_configuration(peer):
    """Regression pinned: `ros2 lifecycle set /arm cleanup` and `configure` forgot it."""
    peer.call("stop")
    for transition in ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
        peer.change(getattr(Transition, f"TRANSITION_{transition}"))
    peer.wait_mode(ArmState.MODE_STOPPED)
    peer.send()
    peer.wait_counts(0, 1)
    peer.call("clear")
    peer.wait_mode(ArmState.MODE_HOLDING)


def test_counts_begin_anew_with_every_activation_and_a_recording_can_tell(peer):
    deltas = []
    peer.node.create_subscription(DeltaMsg, "delta", deltas.append, qos.DELTA)
    peer.send()
    peer.wait_counts(1, 0)
    peer.send((np.nan, 0, 0, 0, 0, 0, 0))
    peer.wait_counts(1, 1)
    peer.change(Transition.TRANSITION_DEACTIVATE)
    peer.change(Transition.TRANSITION_ACTIVATE)
    peer.wait_counts(0, 0)
    assert peer.states[-1].last_refusal == ""
    assert peer.states[-1].last_applied_sequence == 1
    peer.wait_mode(ArmState.MODE_HOLDING)
    peer.send()
    peer.wait_counts(1, 0)
    found, reasons = applied_deltas(deltas, peer.states)
    assert ([message.sequence for message in found], reasons) == ([1, 3], [])


class Driver:
    """Joint states of an arm that stands still, with stamps as told."""

    def __init__(self, spinner, contract):
        self._names = [*contract.arm.joint_names, GRIPPER]
        self._ready_rad = list(contract.ready_joints_rad)
        self.node = spinner.add(Node("driver"))
        self._publisher = self.node.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self.commands = []
        self.node.create_subscription(
            JointState, "joint_commands", self.commands.append, qos.JOINT_COMMANDS
        )
        spinner.wait(self._publisher.get_subscription_count, "the arm")

    def publish(self, waist_rad=0.0, age_s=0.0):
        position = [waist_rad, *self._ready_rad[1:], 0.03]
        message = JointState(name=self._names, position=position)
        message.header.stamp = to_stamp(self.node.get_clock().now().nanoseconds * 1e-9 - age_s)
        self._publisher.publish(message)


def test_joint_states_out_of_order_are_refused_and_counted(spinner, contract):
    node = ArmNode(parameter_overrides=[Parameter("backend", value="sim")])
    node.trigger_configure()
    driver = Driver(spinner, contract)
    spinner.add(node)
    node.trigger_activate()
    spinner.wait(lambda: driver.publish() or driver.commands, "a joint command")
    statuses = []
    driver.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda array: statuses.extend(array.status), qos.DIAGNOSTICS
    )  # fmt: skip
    states = []
    driver.node.create_subscription(ArmState, "arm_state", states.append, qos.STATE)

    def value(name):
        return {value.key: value.value for value in statuses[-1].values}[name]

    def publish_twice():  # once more, 60 ms late and from elsewhere
        driver.publish()
        driver.publish(waist_rad=0.5, age_s=0.06)
        return statuses and int(value("late joint states")) > 50

    spinner.wait(publish_twice, "late joint states in the diagnostics")
    assert {state.measured_joints[0] for state in states} == {0.0}
    assert {command.position[0] for command in driver.commands} == {0.0}
    assert value("clock set back") == "0"


def slow_parking_arm(speed_rad_s):
    overrides = {"backend": "dry_run", "park_on_shutdown": True, "move_speed_rad_s": speed_rad_s,
                 "state_rate_hz": 1.0}  # fmt: skip
    node = ArmNode(
        parameter_overrides=[Parameter(key, value=value) for key, value in overrides.items()]
    )
    node.trigger_configure()
    node.trigger_activate()
    return node


def test_a_park_that_is_cut_short_says_so_and_where_the_arm_stays(ros_domain, spinner, capfd):
    node = slow_parking_arm(0.05)
    assert "can take" in capfd.readouterr().err, "a warning at configuration"
    listener, states = spinner.add(Node("listener")), []
    listener.create_subscription(ArmState, "arm_state", states.append, qos.STATE)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.spin_once(timeout_sec=0.5)
    spinner.wait(node._state_publisher.get_subscription_count, "the listener")
    limit_s, node.shutdown_limit_s = node.shutdown_limit_s, lambda: 0.5
    _wind_down(node, executor)
    assert limit_s() > 50.0, "the park's own duration"
    node.trigger_shutdown()
    log = capfd.readouterr().err
    assert "cut short after 0.5 s: NOT PARKED" in log
    assert "holds its measured joints" in log
    spinner.wait(lambda: states and "NOT PARKED" in states[-1].reason, "the last state")
    assert [state.mode for state in states[-2:]] == [ArmState.MODE_PARKING, ArmState.MODE_HOLDING]
    assert states[-1].commanded_joints == pytest.approx(states[-1].measured_joints, abs=1e-3)
    executor.remove_node(node)
    node.destroy_node()


def test_a_park_takes_as_long_as_its_speed_needs(ros_domain):
    """Regression pinned: a park was ended after 10 s without a word."""
    command = [sys.executable, "-m", "lapa_ros.arm_node", "--ros-args", "-p", "backend:=dry_run",
               "-p", "park_on_shutdown:=true", "-p", "move_speed_rad_s:=0.32"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    limit = threading.Timer(90.0, process.kill)  # the reads below end with the process
    limit.start()
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "waiting for commands" in line:
                break
        process.terminate()
        begun_s = time.monotonic()
        lines += process.stderr.readlines()
        assert process.wait(5.0) == 0
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        process.stderr.close()
    log = "".join(lines)
    assert time.monotonic() - begun_s > 10.0
    assert "parked: in the sleep pose" in log, log
    assert "NOT PARKED" not in log


def test_an_unknown_contract_fails_configure_with_a_failure_not_an_exception(ros_domain):
    from rclpy.lifecycle import TransitionCallbackReturn

    node = ArmNode(parameter_overrides=[Parameter("contract", value="no_such_robot")])
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    node.destroy_node()
