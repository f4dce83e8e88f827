# SPDX-License-Identifier: Apache-2.0
"""The policy node with its model behind a real socket: dead, frozen and slow servers move nothing."""

import time

import numpy as np
import pytest
from lapa_msgs.msg import ArmState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_ros import qos
from lapa_ros.clock import to_seconds
from lapa_ros.images import to_image
from lapa_ros.policy_node import PolicyNode
from policy_server import Server, bins_of
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

TIMEOUT_S = 0.25


@pytest.fixture
def server(contract):
    server = Server(contract)
    yield server
    server.end()


class Scene:
    """A camera whose every frame has a gray of its own, an arm that obeys, and the deltas that arrive."""

    def __init__(self, spinner, contract):
        self._contract = contract
        self.node = spinner.add(Node("scene"))
        self.grays: dict[float, int] = {}
        self.deltas: list[DeltaMsg] = []
        self._image = self.node.create_publisher(
            Image, "camera/front/image_raw", qos_profile_sensor_data
        )
        self._arm = self.node.create_publisher(ArmState, "arm_state", qos.STATE)
        self._instruction = self.node.create_publisher(String, "instruction", qos.INSTRUCTION)
        self.node.create_subscription(DeltaMsg, "delta", self.deltas.append, qos.DELTA)
        self.node.create_timer(0.05, self._tick)
        self._instruction.publish(String(data="push the red block left"))

    def _tick(self):
        self._arm.publish(
            ArmState(mode=ArmState.MODE_HOLDING, reason="", contract_hash=self._contract.hash)
        )
        header = Header(stamp=self.node.get_clock().now().to_msg())
        gray = len(self.grays) % 256
        self.grays[to_seconds(header.stamp)] = gray
        self._image.publish(to_image(np.full((128, 128, 3), gray, np.uint8), header))

    def check(self):
        """Every delta is new, in order, and the answer to the frame that it names."""
        deltas = list(self.deltas)
        stamps = [to_seconds(delta.observation_stamp) for delta in deltas]
        assert [delta.sequence for delta in deltas] == list(range(1, len(deltas) + 1))
        assert sorted(set(stamps)) == stamps
        for delta, stamp in zip(deltas, stamps, strict=True):
            assert list(delta.bins) == bins_of(self.grays[stamp])
            age_s = to_seconds(delta.header.stamp) - stamp
            assert age_s <= self._contract.max_observation_age_s

    def silent_for(self, seconds):
        count = len(self.deltas)
        time.sleep(seconds)
        return len(self.deltas) - count <= 1  # one may have been on its way


@pytest.fixture
def scene(spinner, contract, server, request):
    timeout_s = getattr(request, "param", TIMEOUT_S)
    overrides = {"checkpoint": server.address, "server_timeout_s": timeout_s}
    node = PolicyNode(
        parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()]
    )
    assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
    spinner.add(node)
    scene = Scene(spinner, contract)
    spinner.wait(lambda: len(scene.deltas) >= 3, "three deltas")
    return scene


def test_a_server_that_dies_stops_the_deltas_and_one_that_comes_back_brings_them(
    scene, spinner, server, capfd
):
    server.end()
    assert scene.silent_for(1.5)
    log = capfd.readouterr().err
    assert log.count("no command: no policy server at") == 1, log
    server.start()
    count = len(scene.deltas)
    spinner.wait(lambda: len(scene.deltas) >= count + 5, "five more deltas")
    scene.check()
    spinner.wait(lambda: "over: policy server" in capfd.readouterr().err, "the end of the trouble")


def test_a_server_that_freezes_is_given_up_and_its_late_answers_move_nothing(
    scene, spinner, server, capfd
):
    server.go_on.clear()
    assert scene.silent_for(1.5)
    assert capfd.readouterr().err.count("did not answer within 0.25 s") == 1
    count = len(scene.deltas)
    server.go_on.set()
    spinner.wait(lambda: len(scene.deltas) >= count + 5, "five more deltas")
    scene.check()


@pytest.mark.parametrize("scene", [2.0], indirect=True)
def test_answers_that_come_too_late_for_their_frame_move_nothing(scene, spinner, server, capfd):
    server.delay_s = 0.4
    assert scene.silent_for(1.5)
    assert capfd.readouterr().err.count("no command: its frame is") == 1
    count = len(scene.deltas)
    server.delay_s = 0.0
    spinner.wait(lambda: len(scene.deltas) >= count + 5, "five more deltas")
    scene.check()


def test_without_a_server_the_node_is_not_configured_and_says_so(ros_domain, server, capfd):
    server.end()
    node = PolicyNode(parameter_overrides=[Parameter("checkpoint", value=server.address)])
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert "cannot configure: no policy server at ws://127.0.0.1" in capfd.readouterr().err
    server.start()
    assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
    node.trigger_shutdown()
    node.destroy_node()


def test_a_server_of_a_policy_for_another_robot_is_refused(ros_domain, server, capfd):
    overrides = {"checkpoint": server.address, "contract": "vx300s_sim"}
    node = PolicyNode(
        parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()]
    )
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert "was trained for contract" in capfd.readouterr().err
    node.destroy_node()
