# SPDX-License-Identifier: Apache-2.0
"""The arm node over real DDS, with the dry-run arm."""

import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lapa_msgs.msg import ArmState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_ros import qos
from lapa_ros.arm_node import ArmNode
from lapa_ros.deltas import to_message
from lapa_ros.remote import GraphError, call
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from lapa_core.actions.delta import EndEffectorDelta


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
            for name in ("stop", "clear", "hold", "park", "ready")
        }
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

    def call(self, name):
        return call(self._clients[name], Trigger.Request())

    def wait_mode(self, mode):
        self._spinner.wait(lambda: self.states and self.states[-1].mode == mode, f"mode {mode}")

    def wait_counts(self, applied, refused):
        self._spinner.wait(
            lambda: (self.states[-1].applied, self.states[-1].refused) == (applied, refused),
            f"{applied} applied and {refused} refused",
        )


@pytest.fixture
def arm(spinner):
    node = ArmNode(parameter_overrides=[Parameter("backend", value="dry_run")])
    node.trigger_configure()
    node.trigger_activate()
    spinner.add(node)
    return node


@pytest.fixture
def peer(arm, spinner, contract):
    return Peer(spinner, contract)


def test_a_delta_moves_the_arm_and_its_latency_is_reported(peer):
    before_m = peer.states[-1].commanded_pose.position.x
    peer.send()
    peer.wait_counts(1, 0)
    peer.wait_mode(ArmState.MODE_TRACKING)
    state = peer.states[-1]
    assert state.commanded_pose.position.x == pytest.approx(before_m + 0.01, abs=1e-6)
    assert state.last_applied_source == "policy"
    assert state.last_applied_sequence == 1
    assert 0.0 < state.last_latency_s < 0.2
    time.sleep(0.2)
    assert peer.states[-1].measured_pose.position.x == pytest.approx(before_m + 0.01, abs=1e-3)


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
        5.0,
    )
    status = statuses[-1]
    assert (status.name, status.hardware_id, status.level) == (
        "arm",
        "wx250s_sim",
        DiagnosticStatus.WARN,
    )
    assert {"mode", "applied", "refused"} <= {value.key for value in status.values}


def test_an_inactive_arm_refuses_services_and_applies_nothing(peer, arm, spinner):
    arm.trigger_deactivate()
    with pytest.raises(GraphError, match="not active"):
        peer.call("ready")
    arm.trigger_activate()
    peer.send()
    peer.wait_counts(1, 0)


def test_an_unknown_contract_fails_configure_with_a_failure_not_an_exception(ros_domain):
    from rclpy.lifecycle import TransitionCallbackReturn

    node = ArmNode(parameter_overrides=[Parameter("contract", value="no_such_robot")])
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    node.destroy_node()
