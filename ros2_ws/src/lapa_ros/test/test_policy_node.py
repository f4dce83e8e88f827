# SPDX-License-Identifier: Apache-2.0
"""The policy node over real DDS, with a real, untrained checkpoint."""

import threading
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lapa_msgs.action import FollowInstruction
from lapa_msgs.msg import ArmState, TaskState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_ros import qos
from lapa_ros.clock import to_seconds, to_stamp
from lapa_ros.images import to_image
from lapa_ros.policy_node import PolicyNode
from lapa_ros.remote import wait_future
from rclpy.action import ActionClient
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String
from toy_policy import save_toy_policy


class Robot:
    """A camera (best effort, as drivers are), an arm's state and a task, for a policy to look at."""

    def __init__(self, spinner, contract, **kwargs):
        self.spinner, self._contract = spinner, contract
        self.node = spinner.add(Node("robot", **kwargs))
        self.camera, self.success, self.task = True, False, "push the red block left"
        self.mode, self.encoding = ArmState.MODE_HOLDING, "rgb8"
        self.deltas: list[DeltaMsg] = []
        self._image = self.node.create_publisher(
            Image, "camera/front/image_raw", qos_profile_sensor_data
        )
        self._arm = self.node.create_publisher(ArmState, "arm_state", qos.STATE)
        self._task = self.node.create_publisher(TaskState, "task_state", qos.STATE)
        self.instruction = self.node.create_publisher(String, "instruction", qos.INSTRUCTION)
        self.node.create_subscription(DeltaMsg, "delta", self.deltas.append, qos.DELTA)
        self.action = ActionClient(self.node, FollowInstruction, "policy/follow_instruction")
        self.node.create_timer(0.05, self._tick)
        spinner.wait(self.action.server_is_ready, "the action server")

    def _tick(self):
        header = Header(stamp=self.node.get_clock().now().to_msg())
        self._arm.publish(
            ArmState(mode=self.mode, reason="as told", contract_hash=self._contract.hash)
        )
        if self.camera:
            image = to_image(np.full((128, 128, 3), 90, np.uint8), header)
            image.encoding = self.encoding
            self._image.publish(image)
            self._task.publish(
                TaskState(header=header, instruction=self.task, success=self.success)
            )

    def follow(self, instruction="push the red block left", seconds=20.0):
        self.feedback = []
        goal = FollowInstruction.Goal(instruction=instruction, max_duration_s=seconds)
        sent = self.action.send_goal_async(
            goal, lambda message: self.feedback.append(message.feedback)
        )
        return wait_future(sent, "the goal", 20.0)

    def result(self, handle):
        return wait_future(handle.get_result_async(), "the result", 30.0).result


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(save_toy_policy(tmp_path_factory.mktemp("policy") / "toy"))


@pytest.fixture
def node(spinner, checkpoint):
    node = PolicyNode(parameter_overrides=[Parameter("checkpoint", value=checkpoint)])
    assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
    return spinner.add(node)


@pytest.fixture
def robot(spinner, contract, node):
    return Robot(spinner, contract)


def check_rate(observed_s, contract):
    """Never above the control rate; below it only as far as a busy machine delays frames."""
    period_s = 1.0 / contract.control_rate_hz
    assert np.mean(np.diff(observed_s)) > 0.95 * period_s
    assert np.median(np.diff(observed_s)) < 1.5 * period_s


def test_it_follows_an_instruction_from_the_topic_at_the_control_rate(robot, contract):
    robot.instruction.publish(String(data="push the red block left"))
    robot.spinner.wait(lambda: len(robot.deltas) >= 6, "six deltas")
    deltas = robot.deltas[:6]
    assert [delta.sequence for delta in deltas] == [1, 2, 3, 4, 5, 6]
    observed_s = [to_seconds(delta.observation_stamp) for delta in deltas]
    assert len(set(observed_s)) == 6, "no frame is used twice"
    check_rate(observed_s, contract)
    assert {(delta.source, delta.contract_hash, len(delta.bins)) for delta in deltas} == {
        ("policy", contract.hash, 7)
    }
    robot.instruction.publish(String(data=""))


def test_a_goal_is_followed_with_feedback_and_can_be_cancelled(robot):
    handle = robot.follow()
    robot.spinner.wait(
        lambda: robot.feedback and robot.feedback[-1].steps >= 2, "feedback of two steps"
    )
    assert robot.feedback[-1].latency_ms > 0.0
    assert not robot.follow("another").accepted, "one goal at a time"
    handle.cancel_goal_async()
    result = robot.result(handle)
    assert result.outcome == "cancelled"
    count = len(robot.deltas)
    time.sleep(0.5)
    assert len(robot.deltas) - count <= 1, "a cancelled goal sends nothing more"


def test_success_and_timeout_end_a_goal(robot):
    handle = robot.follow(seconds=0.5)
    assert robot.result(handle).outcome == "timeout"
    handle = robot.follow()
    robot.success = True
    result = robot.result(handle)
    assert result.outcome == "success"
    assert result.steps >= 1


def test_the_success_of_another_task_is_not_that_of_the_goal(robot):
    robot.success, robot.task = True, "point to the blue block"
    handle = robot.follow(seconds=1.0)
    assert robot.result(handle).outcome == "timeout"


@pytest.mark.parametrize(
    ("hindrance", "reason"),
    [({"camera": False}, "stale"), ({"mode": ArmState.MODE_STOPPED}, "does not obey: as told")],
)
def test_a_goal_that_cannot_be_followed_is_halted_with_the_reason(robot, hindrance, reason):
    handle = robot.follow()
    robot.spinner.wait(lambda: robot.deltas, "a delta")
    for name, value in hindrance.items():
        setattr(robot, name, value)
    result = robot.result(handle)
    assert result.outcome == "halted"
    assert reason in result.message


class Gated:
    """A real policy whose thinking lasts until it is let go on."""

    def __init__(self, policy):
        self._policy = policy
        self.thinks, self.go_on = threading.Event(), threading.Event()

    def reset(self):
        self._policy.reset()

    def act(self, frame, instruction):
        step = self._policy.act(frame, instruction)
        self.thinks.set()
        assert self.go_on.wait(30.0)
        return step


def test_a_goal_given_again_in_the_same_words_gets_no_thought_of_the_old_one(
    spinner, node, contract
):
    gated = node._worker._policy = Gated(node._policy)
    robot = Robot(spinner, contract)
    first = robot.follow()
    assert gated.thinks.wait(20.0)
    first.cancel_goal_async()
    assert robot.result(first).outcome == "cancelled"
    accepted_s = robot.node.get_clock().now().nanoseconds * 1e-9
    second = robot.follow()
    gated.go_on.set()
    robot.spinner.wait(lambda: len(robot.deltas) >= 2, "two deltas of the second goal")
    second.cancel_goal_async()
    robot.result(second)
    assert all(to_seconds(delta.observation_stamp) > accepted_s for delta in robot.deltas)


def test_a_stop_that_was_cleared_while_the_node_stood_still_is_heard(node, robot, spinner):
    """Regression pinned: a subscription of depth 1 kept the newest state only."""
    spinner.wait(lambda: node._readiness.arm, "the arm's state")
    spinner.hang(node)
    for robot.mode in (ArmState.MODE_STOPPED, ArmState.MODE_HOLDING):
        time.sleep(0.15)  # the robot says it
    assert node._readiness.num_deaf == 0
    spinner.resume(node)
    spinner.wait(lambda: node._readiness.num_deaf, "the stop")


def test_a_publisher_that_does_not_latch_is_heard_without_a_warning(robot, capfd):
    """Regression pinned: the log said of `ros2 topic pub` that no message would be received, beside one that was."""
    publisher = robot.node.create_publisher(String, "instruction", qos.INSTRUCTION_LIVE)
    robot.spinner.wait(lambda: publisher.get_subscription_count() == 1, "the policy")
    publisher.publish(String(data="push the red block left"))
    robot.spinner.wait(lambda: robot.deltas, "a delta")
    assert "offering incompatible QoS" not in capfd.readouterr().err


def test_an_instruction_that_is_repeated_does_not_disturb_the_rate(robot, contract):
    timer = robot.node.create_timer(
        0.06, lambda: robot.instruction.publish(String(data="push the red block left"))
    )
    robot.spinner.wait(lambda: len(robot.deltas) >= 6, "six deltas")
    robot.node.destroy_timer(timer)
    check_rate([to_seconds(delta.observation_stamp) for delta in robot.deltas[1:6]], contract)


def test_frames_that_cannot_be_decoded_halt_a_goal_and_are_in_the_diagnostics(robot, capfd):
    statuses = []
    robot.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda array: statuses.extend(array.status), qos.DIAGNOSTICS
    )  # fmt: skip
    robot.encoding = "no such encoding"
    result = robot.result(robot.follow())
    assert result.outcome == "halted"
    assert "no such encoding" in result.message
    assert any(
        status.level == DiagnosticStatus.WARN and "no such encoding" in status.message
        for status in statuses
    )
    log = capfd.readouterr().err
    assert log.count("[ERROR]") == 1, log


class Time:
    """Simulated time on /clock, at the rate of real time, that can begin anew."""

    def __init__(self, spinner, start_s):
        self.start_s, self._begun_s = start_s, time.monotonic()
        self._node = spinner.add(Node("time"))
        self._publisher = self._node.create_publisher(ClockMsg, "/clock", 10)
        self._node.create_timer(0.01, self._tick)

    def _tick(self):
        now_s = self.start_s + time.monotonic() - self._begun_s
        self._publisher.publish(ClockMsg(clock=to_stamp(now_s)))


def test_when_simulated_time_begins_anew_the_policy_acts_again(
    spinner, contract, checkpoint, capfd
):
    simulated = Parameter("use_sim_time", value=True)
    clock = Time(spinner, 5000.0)
    node = PolicyNode(parameter_overrides=[Parameter("checkpoint", value=checkpoint), simulated])
    node.trigger_configure()
    node.trigger_activate()
    spinner.add(node)
    robot = Robot(spinner, contract, parameter_overrides=[simulated])
    robot.instruction.publish(String(data="push the red block left"))
    spinner.wait(lambda: len(robot.deltas) >= 2, "two deltas")
    clock.start_s = 10.0
    spinner.wait(lambda: robot.deltas[-1].observation_stamp.sec < 100, "a delta in the new time")
    count = len(robot.deltas)
    spinner.wait(lambda: len(robot.deltas) >= count + 3, "three more")
    assert capfd.readouterr().err.count("the clock was set back") == 1


def test_goals_out_of_range_are_rejected(robot):
    assert not robot.follow(instruction="  ").accepted
    assert not robot.follow(seconds=-1.0).accepted
    assert not robot.follow(seconds=1e6).accepted


@pytest.mark.parametrize(
    "override", [("contract", "vx300s_sim"), ("checkpoint", "/no/such/folder")]
)
def test_a_checkpoint_that_does_not_fit_fails_configure(ros_domain, checkpoint, override):
    overrides = {"checkpoint": checkpoint, override[0]: override[1]}
    node = PolicyNode(
        parameter_overrides=[Parameter(key, value=value) for key, value in overrides.items()]
    )
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    node.destroy_node()


def test_a_policy_that_executes_plans_of_earlier_frames_is_refused(ros_domain, tmp_path, capfd):
    (tmp_path / "config.json").write_text('{"kind": "policy", "decoder": "plan"}')
    node = PolicyNode(parameter_overrides=[Parameter("checkpoint", value=str(tmp_path))])
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert "must come from what the camera shows" in capfd.readouterr().err
    node.destroy_node()
