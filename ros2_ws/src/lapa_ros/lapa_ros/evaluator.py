# SPDX-License-Identifier: Apache-2.0
"""Leads a running graph through instructions: reset, goal, outcome. Runs in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from lapa_msgs.action import FollowInstruction
from lapa_msgs.msg import ArmState
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from lapa_core.sim.instructions import FAMILIES
from lapa_core.sim.tasks import sample_task
from lapa_ros import qos
from lapa_ros.clock import to_seconds
from lapa_ros.filming import Film
from lapa_ros.remote import GraphError, wait_future
from lapa_ros.scene import SceneControl
from lapa_ros.scores import EpisodeScore


@dataclass
class Tally:
    """What the arm states of all episodes add up to."""

    latencies_s: list[float]
    """Observation to application, once per applied command [s]."""
    applied: int = 0
    """Commands applied since the arm node was activated."""
    refused: int = 0
    """Commands refused since the arm node was activated."""


class Evaluator:
    """One FollowInstruction goal per episode, families in turn; keeps scores, latencies and film.

    Attributes:
        scores: one per episode so far.
        film: the first `MAX_CLIPS` episodes.
        tally: commands and latencies.
        path_m: way of the measured end effector in the present episode [m].
    """

    MAX_BROKEN = 2
    """So many episodes in a row that could not even be tried end the evaluation."""

    MAX_CLIPS = 100
    """Episodes that are filmed."""

    MAX_SILENCE_S = 3.0
    """A policy node publishes feedback ten times a second; one that is silent for so long is dead [s]."""

    def __init__(
        self,
        node: Node,
        *,
        episodes: int,
        seed: int,
        max_duration_s: float,
        report: Callable[[str], None],
    ):
        self._episodes, self._seed, self._max_duration_s, self._report = (
            episodes,
            seed,
            max_duration_s,
            report,
        )
        self.scene = SceneControl(node)
        self._action = ActionClient(node, FollowInstruction, "policy/follow_instruction")
        node.create_subscription(ArmState, "arm_state", self._on_arm, qos.STATE)
        node.create_subscription(
            CompressedImage, "camera/spectator/compressed", self._on_spectator, qos.CAMERA
        )
        self.scores: list[EpisodeScore] = []
        self.film = Film(self.MAX_CLIPS)
        self.tally = Tally([])
        self.path_m = 0.0
        self._last_sequence: int | None = None
        self._last_position_m: np.ndarray | None = None
        self._heard_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Follow every instruction.

        Raises:
            GraphError: the graph is broken, or `stop` was set; the scores until then are kept.
        """
        broken = 0
        for index in range(self._episodes):
            seed = self._seed + index
            task = sample_task(np.random.default_rng(seed), (FAMILIES[index % len(FAMILIES)],))
            begun_s = time.monotonic()
            try:
                outcome, steps, note = self._follow(seed, task.instruction, stop)
                broken = broken + 1 if outcome == "halted" else 0
            except GraphError as error:
                if stop.is_set():
                    raise
                outcome, steps, note = "broken", 0, str(error)
                broken += 1
            score = EpisodeScore(
                seed=seed, family=task.family, instruction=task.instruction, outcome=outcome, steps=steps,
                duration_s=time.monotonic() - begun_s, path_m=self.path_m,
            )  # fmt: skip
            self.scores.append(score)
            self.film.end(score.success)
            mark = "done    " if score.success else f"{outcome:<8}"
            self._report(
                f"{index + 1:>3}/{self._episodes}  {mark}  {score.steps:>3} steps {score.duration_s:5.1f} s  "
                f"{task.instruction}" + ("" if outcome in ("success", "timeout") else f"  ({note})")
            )
            if broken >= self.MAX_BROKEN:
                raise GraphError(note)

    def _follow(self, seed: int, instruction: str, stop: threading.Event) -> tuple[str, int, str]:
        self.path_m, self._last_position_m = 0.0, None
        task = self.scene.reset(seed, instruction, stop)
        self._last_position_m = None  # the reset moved the arm; only what it does itself counts
        self.path_m = 0.0
        self.film.begin(instruction, to_seconds(task.header.stamp))
        if not self._action.wait_for_server(timeout_sec=10.0):
            raise GraphError(
                "the policy node's action did not appear within 10 s; is the policy node alive?"
            )
        goal = FollowInstruction.Goal(instruction=instruction, max_duration_s=self._max_duration_s)
        self._heard_s = time.monotonic()
        handle = wait_future(
            self._action.send_goal_async(goal, self._on_feedback), "the policy node", 5.0
        )
        if not handle.accepted:
            raise GraphError("the policy node rejected the goal; its log says why")
        answer = self._result(handle, stop)
        if answer.outcome != "halted":  # a halted goal has an arm or a camera that is not there
            self.scene.hold()
        return answer.outcome, answer.steps, answer.message

    def _result(self, handle: ClientGoalHandle, stop: threading.Event) -> FollowInstruction.Result:
        """Wait for the goal's end in short turns: stops are obeyed, a policy node without feedback is dead."""
        future = handle.get_result_async()
        while not future.done():
            if stop.wait(0.02):
                handle.cancel_goal_async()
                raise GraphError("stopped")
            if (silence_s := time.monotonic() - self._heard_s) > self.MAX_SILENCE_S:
                raise GraphError(f"the policy node has been silent for {silence_s:.1f} s")
        return future.result().result

    def _on_feedback(self, _: object) -> None:
        self._heard_s = time.monotonic()

    def _on_arm(self, state: ArmState) -> None:
        new = self._last_sequence is not None and state.last_applied_sequence not in (
            0,
            self._last_sequence,
        )
        if new and np.isfinite(state.last_latency_s):
            self.tally.latencies_s.append(state.last_latency_s)
        self._last_sequence = state.last_applied_sequence
        self.tally.applied, self.tally.refused = state.applied, state.refused
        point = state.measured_pose.position
        position_m = np.array([point.x, point.y, point.z])
        last_m, self._last_position_m = self._last_position_m, position_m
        if last_m is not None:
            self.path_m += float(np.linalg.norm(position_m - last_m))

    def _on_spectator(self, message: CompressedImage) -> None:
        self.film.add(bytes(message.data), to_seconds(message.header.stamp))


def broken_loop(evaluator: Evaluator) -> str:
    """Return why the loop did not close, or "" when it did: camera, commands and motion were there."""
    if evaluator.scene.task is None:
        return "the simulator never published its task"
    if evaluator.scene.arm is None:
        return "the arm node never published its state"
    if not any(score.steps for score in evaluator.scores):
        return "the policy never published a command: " + (
            evaluator.scores[-1].outcome if evaluator.scores else ""
        )
    if not evaluator.tally.applied:
        return "the arm never applied a command"
    if max(score.path_m for score in evaluator.scores) < 0.005:
        return "the arm never moved by 5 mm"
    return ""
