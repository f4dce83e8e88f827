# SPDX-License-Identifier: Apache-2.0
"""`policy`: camera frames and an instruction in, end-effector deltas out. A shell around `PolicyWorker`."""

from __future__ import annotations

import os
import sys
from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
from lapa_msgs.action import FollowInstruction
from lapa_msgs.msg import ArmState, TaskState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import SubscriptionEventCallbacks
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from lapa_core.errors import ContractError
from lapa_core.policy import SERVER_SCHEMES, Policy, refuse_plans
from lapa_core.robot.contract import load_contract
from lapa_core.serve.config import read_token
from lapa_ros import images, qos
from lapa_ros.arm_report import read_report
from lapa_ros.clock import to_seconds
from lapa_ros.deltas import to_message
from lapa_ros.diagnostics import OK, WARN, Health
from lapa_ros.following import Following
from lapa_ros.lifecycle import ManagedNode, run
from lapa_ros.mailbox import Mailbox
from lapa_ros.policy_logic import PolicyWorker, Readiness, Thought
from lapa_ros.remote import GraphError
from lapa_ros.safety_frames import FrozenFrames


class PolicyNode(ManagedNode):
    """Subscribes a camera, instruction, arm_state and task_state; publishes delta; serves ~/follow_instruction."""

    def __init__(self, **kwargs: object):
        super().__init__("policy", **kwargs)
        self._policy: Policy | None = None
        self._worker: PolicyWorker | None = None
        self._goal: tuple[ServerGoalHandle, Following] | None = None
        self._num_unsettled = 0

    def setup(self) -> None:
        """Load contract and checkpoint, check that they belong together, think once, make the topics."""
        self._contract = load_contract(self.params.contract)
        self._policy = self._load_policy()
        self._check_policy()
        camera = self._contract.cameras["front"]
        self._mailbox: Mailbox[Image | CompressedImage] = Mailbox(
            1.0 / self._contract.control_rate_hz
        )
        self._readiness = Readiness(self._contract)
        self._readiness.instruct(self.params.instruction)
        self._frozen = FrozenFrames()
        self._sequence = 0
        self._latency_s = float("nan")
        self._seen_s: deque[float] = deque(maxlen=50)
        self._succeeded_s: deque[float] = deque(maxlen=50)
        self._publisher = self.create_lifecycle_publisher(DeltaMsg, "delta", qos.DELTA)
        topic = f"{self.params.camera_topic or camera.topic}/image_raw"
        kind = Image
        if self.params.transport == "compressed":
            kind, topic = CompressedImage, f"{topic}/compressed"
        # Of publishers that do not latch this one hears nothing, as it should: rclpy is not to warn of that.
        self.create_subscription(
            String, "instruction", self._on_instruction, qos.INSTRUCTION,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )  # fmt: skip
        for message, name, handler, profile in (
            (kind, topic, self._on_frame, qos.CAMERA),
            (String, "instruction", self._on_instruction, qos.INSTRUCTION_LIVE),
            (ArmState, "arm_state", self._on_arm, qos.STATES),
            (TaskState, "task_state", self._on_task, qos.STATE),
        ):
            self.create_subscription(message, name, handler, profile)
        ActionServer(
            self, FollowInstruction, "~/follow_instruction", execute_callback=self._conclude,
            goal_callback=self._on_goal, handle_accepted_callback=self._on_accepted,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )  # fmt: skip
        self.get_logger().info(f"sees {self.resolve_topic_name(topic)}")

    def start(self) -> None:
        """Begin to think.

        Raises:
            GraphError: an inference of before has not ended.
        """
        assert self._policy is not None, "a node is configured before it is activated"
        if self._thinks():
            raise GraphError("the inference of before has not ended; activate again once it has")
        self._worker = PolicyWorker(
            policy=self._policy, decode=lambda message: self._frozen.check(images.to_rgb(message)),
            mailbox=self._mailbox, readiness=self._readiness, emit=self._publish, clock=self.now_s, say=self.say,
            period_s=1.0 / self._contract.control_rate_hz, on_crash=lambda: self.end(1),
        )  # fmt: skip
        self._worker.start()
        self._goal_timer = self.create_timer(0.1, self._watch_goal)

    def stop(self) -> None:
        """End the thinking; without commands the arm holds by its watchdog."""
        self.destroy_timer(self._goal_timer)
        if not self._worker.stop():
            self.get_logger().error("the inference under way did not end within 5 s")
        if self._goal is not None:
            self._end_goal("halted", "the policy node was stopped")

    def before_shutdown(self) -> None:
        """Tell the goal's client while the node still spins."""
        if self._goal is not None:
            self._end_goal("halted", "the policy node was stopped")

    def may_shut_down(self) -> bool:
        """Return whether every goal has its result, and nobody thinks who should not."""
        return self._num_unsettled == 0 and (self.active or not self._thinks())

    def unfinished(self) -> str:
        """Say what becomes of a goal whose client has not been told."""
        return "" if self._num_unsettled == 0 else "the goal's client gets no result"

    def teardown(self) -> None:
        """Give the policy back."""
        if self._policy is not None:
            self._policy.close()
            self._policy = None

    def health(self) -> Health:
        """Not acting although there is an instruction is worth a warning, and so is what hinders the acting."""
        worker = self._worker
        if not self.active or worker is None:
            return Health(OK, "inactive", {})
        last = worker.last
        values = {"instruction": self._readiness.instruction, "steps": worker.num_steps,
                  "inference [s]": f"{last.inference_s:.4f}" if last else ""}  # fmt: skip
        waiting_for, troubles = worker.waiting_for, worker.troubles.describe()
        fine = waiting_for in ("", "no instruction") and not troubles
        acting = f"acting, but {troubles}" if troubles else "acting"
        return Health(OK if fine else WARN, waiting_for or acting, values)

    def _thinks(self) -> bool:
        return self._worker is not None and self._worker.is_thinking

    def _load_policy(self) -> Policy:
        params = self.params
        if params.checkpoint.startswith(SERVER_SCHEMES):
            from lapa_core.serve.client import connect_policy  # websockets comes with it

            file = Path(params.server_token_file) if params.server_token_file else None
            return connect_policy(
                params.checkpoint, token=read_token(file), timeout_s=params.server_timeout_s
            )
        os.environ.setdefault("OMP_NUM_THREADS", str(params.num_threads))
        # After a stop, a hold or a silence such a policy would go on with what it saw before.
        refuse_plans(params.checkpoint, "what moves an arm must come from what the camera shows")
        policy = Policy.load(params.checkpoint or None)
        import torch  # loaded by the policy; importing it before would slow every other failure

        torch.set_num_threads(params.num_threads)
        return policy

    def _check_policy(self) -> None:
        policy = self._policy
        if policy.contract_hash != self._contract.hash:
            raise ContractError(
                f"the checkpoint was trained for contract {policy.contract_hash[:12]}, this robot's "
                f"{self._contract.name} is {self._contract.hash[:12]}; finetune on this robot's recordings"
            )
        camera = self._contract.cameras["front"]
        blank = images.to_image(
            np.zeros((camera.height_px, camera.width_px, 3), np.uint8), Header()
        )
        policy.act(images.to_rgb(blank), "warm up")  # the first call of everything is slow

    def _publish(self, thought: Thought) -> None:
        self._sequence += 1
        message = to_message(
            thought.step.delta, source="policy", sequence=self._sequence, stamp_s=self.now_s(),
            observation_s=thought.observation_s, contract_hash=self._contract.hash, bins=thought.step.bins.tolist(),
        )  # fmt: skip
        self._publisher.publish(message)
        self._latency_s = to_seconds(message.header.stamp) - thought.observation_s
        self._seen_s.append(thought.observation_s)
        if self._goal is not None:  # the worker holds the lock under which goals change
            self._goal[1].steps += 1

    def _on_frame(self, message: Image | CompressedImage) -> None:
        if anew := self._mailbox.put(to_seconds(message.header.stamp), message):
            self.get_logger().warning(f"camera: {anew}")

    def _on_arm(self, state: ArmState) -> None:
        self._readiness.hear_arm(read_report(state, self.now_s()))
        self._frozen.arm(state.measured_joints)

    def _on_task(self, state: TaskState) -> None:
        if state.success and state.instruction.strip() == self._readiness.instruction:
            self._succeeded_s.append(to_seconds(state.header.stamp))

    def _has_succeeded(self) -> bool:
        """Judge on the very frames that the policy acted on, as the Gymnasium environment does."""
        return not set(self._seen_s).isdisjoint(self._succeeded_s)

    def _on_instruction(self, message: String) -> None:
        if self._goal is not None:
            self.get_logger().warning(
                "instruction ignored: a FollowInstruction goal is being followed"
            )
            return
        if message.data.strip() != self._readiness.instruction:  # repeated: nothing new is asked
            self._instruct(message.data, None)

    def _instruct(self, instruction: str, goal: tuple[ServerGoalHandle, Following] | None) -> None:
        self._mailbox.restart()  # only frames from after the instruction answer it
        with self._readiness.lock:
            self._readiness.instruct(instruction)
            self._seen_s.clear()
            self._goal = goal

    def _on_goal(self, goal: FollowInstruction.Goal) -> GoalResponse:
        problem = ""
        if not self.active:
            problem = "the policy node is not active"
        elif self._goal is not None:
            problem = f"{self._goal[1].instruction!r} is being followed; cancel it first"
        elif not goal.instruction.strip():
            problem = "the instruction is empty"
        elif not 0.0 <= goal.max_duration_s <= self.params.max_duration_s:
            problem = f"max_duration_s is {goal.max_duration_s}; allowed are 0 to {self.params.max_duration_s}"
        if problem:
            self.get_logger().warning(f"goal rejected: {problem}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        """Begin to follow; `handle.execute` comes when it is over.

        An execute callback that lasts as long as the goal would block this single-threaded node, and one that
        awaits makes rclpy's executor spin at full speed.
        """
        goal = handle.request
        duration_s = goal.max_duration_s or self.params.max_duration_s
        following = Following(goal.instruction, duration_s, self.now_s())
        self._instruct(goal.instruction, (handle, following))

    def _watch_goal(self) -> None:
        if self._goal is None:
            return
        handle, following = self._goal
        now_s = self.now_s()
        feedback = FollowInstruction.Feedback(
            steps=following.steps, elapsed_s=now_s - following.started_s, waiting_for=self._worker.waiting_for,
            latency_ms=self._latency_s * 1e3,
        )  # fmt: skip
        handle.publish_feedback(feedback)
        if following.update(now_s, cancelled=handle.is_cancel_requested, success=self._has_succeeded(),
                            waiting_for=self._worker.waiting_for):  # fmt: skip
            self._end_goal(following.outcome, following.message)

    def _end_goal(self, outcome: str, message: str) -> None:
        assert self._goal is not None, "only a goal that is followed ends"
        handle, following = self._goal
        self._instruct("", None)
        following.outcome, following.message = outcome, message
        self.get_logger().info(f"{following.instruction!r}: {outcome}, {message}")
        self._num_unsettled += 1
        handle.execute(partial(self._conclude, following=following))

    def _conclude(
        self, handle: ServerGoalHandle, following: Following | None = None
    ) -> FollowInstruction.Result:
        assert following is not None, "a goal is executed only by _end_goal"
        settle = {"success": handle.succeed, "cancelled": handle.canceled}.get(
            following.outcome, handle.abort
        )
        settle()
        self._num_unsettled -= 1
        return FollowInstruction.Result(
            outcome=following.outcome, message=following.message, steps=following.steps
        )


def main() -> None:
    """Run the node."""
    sys.exit(run(PolicyNode))


if __name__ == "__main__":
    main()
