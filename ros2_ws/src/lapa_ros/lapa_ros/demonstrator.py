# SPDX-License-Identifier: Apache-2.0
"""The scripted demonstrator's session: reset, start recording, act until done, save. Runs in a thread of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from lapa_msgs.msg import TaskState

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.sim.expert import expert_action
from lapa_core.sim.tasks import parse_instruction
from lapa_ros.clock import to_seconds
from lapa_ros.geometry import from_pose
from lapa_ros.mailbox import Mailbox
from lapa_ros.remote import GraphError
from lapa_ros.scene import SceneControl

Publish = Callable[[EndEffectorDelta, float], None]


def seen_world(state: TaskState) -> Any:
    """Return what the expert looks at, from a task state: the tool's and the blocks' positions [m]."""
    blocks = {
        name: from_pose(pose)[:3, 3]
        for name, pose in zip(state.object_names, state.object_poses, strict=True)
    }
    return SimpleNamespace(
        block_positions_m=blocks, tool_xy_m=from_pose(state.end_effector_pose)[:2, 3]
    )


@dataclass(frozen=True, kw_only=True)
class DemonstrationPlan:
    """What to demonstrate."""

    episodes: int
    """Number of episodes."""
    seed: int
    """Seed of the first; the next ones count up."""
    max_steps: int
    """Commands after which an episode has failed."""
    record: bool
    """Whether to record."""
    keep_failures: bool
    """Whether failed episodes are saved too."""


class Demonstrator:
    """Drives whole episodes through the graph's services, acting as a person would: one command per control period.

    Attributes:
        num_done, num_failed: episodes so far.
    """

    MAX_SPOILT = 5
    """So many episodes spoilt in a row end the session."""

    LEAD_S = 0.15
    """Recording runs for so long before the first command, so that it has an arm state from before it [s]."""

    def __init__(
        self, plan: DemonstrationPlan, scene: SceneControl, states: Mailbox[TaskState], publish: Publish,
        clock: Callable[[], float], log: Callable[[str], None],
    ):  # fmt: skip
        self._plan, self._scene, self._states = plan, scene, states
        self._publish, self._clock, self._log = publish, clock, log
        self.num_done = self.num_failed = 0

    def run(self, stop: threading.Event) -> None:
        """Demonstrate every episode of the plan; one that a hiccup of the graph spoils is discarded.

        Raises:
            GraphError: `MAX_SPOILT` episodes in a row were spoilt, or `stop` was set.
        """
        spoilt = 0
        for index in range(self._plan.episodes):
            label = f"episode {index + 1}/{self._plan.episodes} seed {self._plan.seed + index}"
            try:
                self._log(f"{label}: {self._episode(self._plan.seed + index, stop)}")
                spoilt = 0
            except GraphError as error:
                spoilt += 1
                self.num_failed += 1
                if stop.is_set() or spoilt == self.MAX_SPOILT:
                    raise
                self._log(f"{label}: discarded: {error}")

    def _episode(self, seed: int, stop: threading.Event) -> str:
        start = self._scene.reset(seed, "", stop)
        if self._plan.record:
            facts = json.dumps({"seed": seed, "family": start.family, "domain": start.domain})
            self._scene.start_recording(start.instruction, "scripted", facts)
        try:
            steps = self.act(start.episode, stop)
        except GraphError:
            if self._plan.record:
                self._scene.stop_recording(False, "interrupted")
            raise
        outcome = "timeout" if steps is None else "success"
        self._scene.note(outcome, start.instruction)
        if self._plan.record:
            self._scene.stop_recording(steps is not None or self._plan.keep_failures, outcome)
        self.num_done += 1
        self.num_failed += steps is None
        return f"{start.instruction!r} {outcome} after {self._plan.max_steps if steps is None else steps} steps"

    def act(self, episode: int, stop: threading.Event) -> int | None:
        """Command until the task is done; return the number of commands, or None where they ran out."""
        self._states.restart(not_before_s=self._clock() + self.LEAD_S)
        for step in range(self._plan.max_steps + 1):
            state = self._next_state(episode, stop)
            if state.success:
                return step
            if step == self._plan.max_steps:
                break
            action = expert_action(seen_world(state), parse_instruction(state.instruction))
            self._publish(
                EndEffectorDelta.from_array(np.asarray(action)), to_seconds(state.header.stamp)
            )
        return None

    def _next_state(self, episode: int, stop: threading.Event) -> TaskState:
        letter = self._states.take(timeout_s=2.0)
        if stop.is_set():
            raise GraphError("stopped")
        if letter is None:
            raise GraphError("no task state for 2 s; is the simulator alive?")
        if letter.content.episode != episode:
            raise GraphError(f"the scene was reset by somebody else during episode {episode}")
        return letter.content
