# SPDX-License-Identifier: Apache-2.0
"""The fault table of docs/safety.md: each fault is injected into a policy that drives an arm, and the hold is timed.

Policy and arm are the real nodes over DDS; the arm is a dry run, the camera is the test's.
"""

import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from lapa_msgs.msg import ArmState
from lapa_ros import qos
from lapa_ros.arm_node import ArmNode
from lapa_ros.clock import to_stamp
from lapa_ros.images import to_image
from lapa_ros.policy_node import PolicyNode
from lapa_ros.remote import call
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, Joy
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger
from toy_policy import save_toy_policy

from lapa_core.actions.bins import ActionBins

SLACK_S = 0.4
"""For a busy machine [s]."""


class Scene:
    """A camera with noise, an instruction, and everything that can be wrong with them."""

    def __init__(self, spinner, contract):
        self.spinner, self.contract = spinner, contract
        self.node = spinner.add(Node("scene"))
        self.states = []
        self.shows, self.frozen, self.ahead_s, self.encoding = True, False, 0.0, "rgb8"
        self._random = np.random.default_rng(0)
        self._frame = self._random.integers(0, 255, (128, 128, 3), np.uint8)
        self._image = self.node.create_publisher(
            Image, "camera/front/image_raw", qos_profile_sensor_data
        )
        self._instruction = self.node.create_publisher(String, "instruction", qos.INSTRUCTION)
        self.node.create_subscription(ArmState, "arm_state", self._on_state, qos.STATE)
        self.node.create_timer(0.05, self._tick)
        self._instruction.publish(String(data="push the red block left"))

    def _on_state(self, state):
        self.states.append((time.monotonic(), state))

    def now_s(self):
        return self.node.get_clock().now().nanoseconds * 1e-9

    def _tick(self):
        if not self.shows:
            return
        if not self.frozen:
            self._frame = self._random.integers(0, 255, (128, 128, 3), np.uint8)
        image = to_image(self._frame, Header(stamp=to_stamp(self.now_s() + self.ahead_s)))
        if self.encoding != "rgb8":
            nan = np.full((128, 128), np.nan, np.float32)
            image.encoding, image.step, image.data = self.encoding, 512, nan.tobytes()
        self._image.publish(image)

    def mode(self):
        return self.states[-1][1].mode if self.states else None

    def track(self):
        self.spinner.wait(lambda: self.mode() == ArmState.MODE_TRACKING, "tracking")
        applied = self.states[-1][1].applied
        self.spinner.wait(lambda: self.states[-1][1].applied >= applied + 3, "three more deltas")

    def time_to_hold(self, limit_s=10.0):
        """Return how long the arm went on after now [s]: until it holds, and stays so for two watchdogs."""
        begun_s = time.monotonic()
        self.states.clear()
        patience_s = 2.0 * self.contract.watchdog_s

        def holds():
            since = [at_s for at_s, state in self.states if state.mode == ArmState.MODE_TRACKING]
            last_s = max(since, default=begun_s)
            return self.states and self.states[-1][0] - last_s > patience_s

        self.spinner.wait(holds, "a hold", limit_s)
        tracking = [at_s for at_s, state in self.states if state.mode == ArmState.MODE_TRACKING]
        return max(tracking, default=begun_s) - begun_s


def start(spinner, kind, **overrides):
    node = kind(
        parameter_overrides=[Parameter(key, value=value) for key, value in overrides.items()]
    )
    node.trigger_configure()
    node.trigger_activate()
    return spinner.add(node)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(save_toy_policy(tmp_path_factory.mktemp("policy") / "toy"))


@pytest.fixture
def scene(spinner, contract):
    start(spinner, ArmNode, backend="dry_run", max_command_age_s=0.5)
    return Scene(spinner, contract)


@pytest.fixture
def policy(spinner, scene, checkpoint):
    node = start(spinner, PolicyNode, checkpoint=checkpoint)
    scene.track()
    return node


def stop_camera(scene, policy):
    scene.shows = False


def freeze_frames(scene, policy):
    scene.frozen = True


def set_camera_clock(scene, policy):
    scene.ahead_s = 5.0


def show_nan(scene, policy):
    scene.encoding = "32FC1"


def slow_policy(scene, policy):
    act = policy._policy.act

    def slowly(frame, instruction):
        time.sleep(0.5)
        return act(frame, instruction)

    policy._policy.act = slowly


def bin_out_of_range(scene, policy):
    bins = ActionBins.fit(np.random.default_rng(0).uniform(0.0, 0.01, (200, 7)), max_bins=8)
    policy._policy.act = lambda frame, instruction: bins.decode(np.full(7, 999))


@pytest.mark.parametrize(
    ("fault", "extra_s", "words"),
    [
        (stop_camera, 0.5, "stale"),
        (freeze_frames, 2.0, "the camera is frozen"),
        (set_camera_clock, 0.2, "in the future"),
        (show_nan, 0.2, "32FC1"),
        (slow_policy, 0.5, "too slow"),
        (bin_out_of_range, 0.2, "bin"),
    ],
)
def test_a_fault_of_what_the_policy_sees_or_does_makes_the_arm_hold(
    scene, policy, fault, extra_s, words
):
    """Within the watchdog's time of the last good delta; `extra_s` is how long good ones may still come."""
    fault(scene, policy)
    took_s = scene.time_to_hold()
    print(f"{fault.__name__}: {took_s:.2f} s")
    assert took_s <= scene.contract.watchdog_s + extra_s + SLACK_S
    assert words in policy._worker.waiting_for


def test_when_the_camera_comes_back_the_policy_goes_on(scene, policy):
    scene.shows = False
    scene.time_to_hold()
    scene.shows = True
    scene.track()


def end_while_tracking(scene, node, parameter, how):
    """Start what drives the arm as a process of its own, and end it when the arm follows: the arm must hold."""
    command = [sys.executable, "-m", f"lapa_ros.{node}_node", "--ros-args", "-p", parameter]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        scene.spinner.wait(lambda: scene.mode() == ArmState.MODE_TRACKING, "tracking", 60.0)
        process.send_signal(how)
        took_s = scene.time_to_hold()
    finally:
        process.kill()
        process.wait()
    print(f"{node} {how.name}: {took_s:.2f} s")
    assert took_s <= scene.contract.watchdog_s + 1.0 / scene.contract.control_rate_hz + SLACK_S


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_policy_process_that_ends_makes_the_arm_hold(scene, checkpoint, how):
    end_while_tracking(scene, "policy", f"checkpoint:={checkpoint}", how)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_teleop_process_that_ends_with_the_switch_held_makes_the_arm_hold(scene, how):
    switch, forward = [int(index == 5) for index in range(11)], [0.0, 1.0, *[0.0] * 6]
    joy = scene.node.create_publisher(Joy, "joy", qos.JOINT_STATES)

    def press():  # again and again until it works: a switch that is down at the start counts for nothing
        held = scene.mode() == ArmState.MODE_TRACKING or time.monotonic() % 1.5 > 0.3
        message = Joy(axes=forward if held else [0.0] * 8, buttons=switch if held else [0] * 11)
        message.header.stamp = scene.node.get_clock().now().to_msg()
        joy.publish(message)

    scene.node.create_timer(0.02, press)
    end_while_tracking(scene, "teleop", "device:=joy", how)


FLOOD = """
import sys, time
import rclpy
from rclpy.node import Node
from lapa_core.actions.delta import EndEffectorDelta
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_ros import qos
from lapa_ros.deltas import to_message
rclpy.init()
node = Node("flood")
publisher = node.create_publisher(DeltaMsg, "delta", qos.DELTA)
while not publisher.get_subscription_count():
    time.sleep(0.01)
for sequence in range(1, 1_000_000):
    delta = EndEffectorDelta.from_array((0.02 * (-1) ** sequence, 0, 0, 0, 0, 0, 0))
    publisher.publish(to_message(delta, source="policy", sequence=sequence, stamp_s=time.time(),
                                 observation_s=None, contract_hash=sys.argv[1]))
    time.sleep(0.0005)
"""


def test_a_flood_neither_speeds_the_arm_up_nor_delays_a_stop(scene):
    scene.spinner.wait(lambda: scene.mode() == ArmState.MODE_HOLDING, "the arm")
    client = scene.node.create_client(Trigger, "arm/stop")
    assert client.wait_for_service(10.0)
    process = subprocess.Popen([sys.executable, "-c", FLOOD, scene.contract.hash])
    try:
        scene.spinner.wait(lambda: scene.states[-1][1].applied, "the flood")
        before, begun_s = scene.states[-1][1], time.monotonic()
        time.sleep(3.0)
        after, flooded_s = scene.states[-1][1], time.monotonic() - begun_s
        asked_s = time.monotonic()
        call(client, Trigger.Request())
        stop_s = time.monotonic() - asked_s
    finally:
        process.kill()
        process.wait()
    applied = after.applied - before.applied
    arrived_hz = (applied + after.refused - before.refused) / flooded_s
    print(
        f"flood: {arrived_hz:.0f} Hz, {applied} applied in {flooded_s:.1f} s; stop {stop_s:.3f} s"
    )
    assert arrived_hz > 50.0, "it was a flood"
    assert 1 <= applied <= flooded_s * scene.contract.control_rate_hz * 1.1 + 2
    assert stop_s < 0.5
    scene.spinner.wait(lambda: scene.mode() == ArmState.MODE_STOPPED, "the stop", 2.0)


def test_a_second_and_a_third_interrupt_do_not_disturb_a_park(ros_domain):
    command = [sys.executable, "-m", "lapa_ros.arm_node", "--ros-args", "-p", "backend:=dry_run",
               "-p", "park_on_shutdown:=true", "-p", "move_speed_rad_s:=2.0"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    limit = threading.Timer(60.0, process.kill)  # the reads below end with the process
    limit.start()
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if "waiting for commands" in line:
                process.send_signal(signal.SIGINT)
                asked_s = time.monotonic()
            elif "parked: " in line:
                took_s = time.monotonic() - asked_s
            elif "parking: " in line:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                    time.sleep(0.2)
                    process.send_signal(number)
        assert process.wait(5.0) == 0
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        process.stderr.close()
    log = "".join(lines)
    assert "parked: in the sleep pose" in log, log
    assert "NOT PARKED" not in log
    announced_s = float(re.search(r"parking takes ([\d.]+) s", log)[1])
    print(
        f"interrupted three times: parked after {took_s:.2f} s of the {announced_s:.1f} s announced"
    )
    assert took_s < announced_s + SLACK_S
