# SPDX-License-Identifier: Apache-2.0
"""Bring simulator, arm and recorder through an episode's beginning and end. For worker threads, never callbacks."""

from __future__ import annotations

import threading
import time

import numpy as np
from lapa_msgs.msg import ArmState, RecorderEvent, TaskState
from lapa_msgs.srv import ResetTask, StartEpisode, StopEpisode
from rclpy.node import Node
from std_srvs.srv import Trigger

from lapa_ros import qos
from lapa_ros.geometry import from_pose
from lapa_ros.remote import GraphError, call, wait_until


class SceneControl:
    """Clients of the sim, arm and recorder nodes, and the newest of their states.

    Attributes:
        task: newest task state; None before the first.
        arm: newest arm state; None before the first.
    """

    READY_DISTANCE_M = 0.005
    """The arm's target may start this far from where the simulator put the arm [m]."""

    START_ATTEMPTS = 8

    def __init__(self, node: Node):
        """Make the clients and subscriptions on a node that somebody spins."""
        self._clock = node.get_clock()
        self.task: TaskState | None = None
        self.arm: ArmState | None = None
        self._reset = node.create_client(ResetTask, "sim/reset")
        self._hold = node.create_client(Trigger, "arm/hold")
        self._start = node.create_client(StartEpisode, "recorder/start")
        self._stop = node.create_client(StopEpisode, "recorder/stop")
        self._events = node.create_publisher(RecorderEvent, "recorder_event", qos.EVENTS)
        node.create_subscription(TaskState, "task_state", self._on_task, qos.STATE)
        node.create_subscription(ArmState, "arm_state", self._on_arm, qos.STATE)

    def reset(self, seed: int, instruction: str, stop: threading.Event) -> TaskState:
        """Lay out a scene and anchor the arm where the simulator put it; return the task's state.

        Raises:
            GraphError: a node failed, or `stop` was set.
        """
        answer = call(self._reset, ResetTask.Request(seed=seed, instruction=instruction))
        wait_until(
            lambda: self.task is not None and self.task.episode == answer.episode,
            "the new scene's task state", 5.0, stop,
        )  # fmt: skip
        wait_until(self._arm_measures, "the arm to receive joint states", 5.0, stop)
        call(self._hold, Trigger.Request())
        wait_until(self._arm_is_anchored, "the arm to hold where the simulator put it", 5.0, stop)
        assert self.task is not None
        return self.task

    def hold(self) -> None:
        """Make the arm hold where it is.

        Raises:
            GraphError: the arm node failed or refused.
        """
        call(self._hold, Trigger.Request())

    def note(self, kind: str, text: str) -> None:
        """Publish an event, which a recorder writes down."""
        event = RecorderEvent(kind=kind, text=text)
        event.header.stamp = self._clock.now().to_msg()
        self._events.publish(event)

    def start_recording(self, instruction: str, operator_name: str, metadata_json: str) -> str:
        """Open an episode; return its identifier. A recorder that does not hear every topic yet gets a few seconds.

        Raises:
            GraphError: the recorder failed or refused.
        """
        request = StartEpisode.Request(
            instruction=instruction, operator_name=operator_name, metadata_json=metadata_json
        )
        for attempt in range(self.START_ATTEMPTS):
            try:
                return call(self._start, request).episode_id
            except GraphError:
                if attempt + 1 == self.START_ATTEMPTS:
                    raise
                time.sleep(0.5)
        raise AssertionError("the last attempt returns or raises")

    def stop_recording(self, save: bool, outcome: str) -> str:
        """Close the episode; return its path, "" where it was not saved.

        Raises:
            GraphError: the recorder failed or refused.
        """
        return call(
            self._stop, StopEpisode.Request(save=save, outcome=outcome), timeout_s=30.0
        ).path

    def _on_task(self, state: TaskState) -> None:
        self.task = state

    def _on_arm(self, state: ArmState) -> None:
        self.arm = state

    def _arm_measures(self) -> bool:
        return self.arm is not None and self.arm.mode != ArmState.MODE_WAITING

    def _arm_is_anchored(self) -> bool:
        if self.arm is None or self.task is None or self.arm.mode != ArmState.MODE_HOLDING:
            return False
        commanded, true = from_pose(self.arm.commanded_pose), from_pose(self.task.end_effector_pose)
        return bool(np.linalg.norm(commanded[:3, 3] - true[:3, 3]) < self.READY_DISTANCE_M)
