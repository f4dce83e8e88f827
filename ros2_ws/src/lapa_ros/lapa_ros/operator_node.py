# SPDX-License-Identifier: Apache-2.0
"""`operator`: a scripted person who demonstrates tasks in the simulator, for recording. Ends when it is done."""

from __future__ import annotations

import sys

from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_msgs.msg import TaskState

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.robot.contract import load_contract
from lapa_ros import qos
from lapa_ros.clock import to_seconds
from lapa_ros.deltas import to_message
from lapa_ros.demonstrator import DemonstrationPlan, Demonstrator
from lapa_ros.diagnostics import OK, Health
from lapa_ros.lifecycle import run
from lapa_ros.mailbox import Mailbox
from lapa_ros.scene import SceneControl
from lapa_ros.session_demonstrator import SessionClient, SessionDemonstrator
from lapa_ros.worker_node import WorkerNode


class OperatorNode(WorkerNode):
    """Subscribes task_state, publishes delta, calls the services of sim, arm and recorder."""

    def __init__(self, **kwargs: object):
        super().__init__("operator", **kwargs)
        self._sequence = 0

    def setup(self) -> None:
        """Load the contract and make topics and clients."""
        self._contract = load_contract(self.params.contract)
        self._states: Mailbox[TaskState] = Mailbox(1.0 / self._contract.control_rate_hz)
        self._publisher = self.create_publisher(DeltaMsg, "delta", qos.DELTA)
        self._subscription = self.create_subscription(
            TaskState, "task_state", self._on_task, qos.STATE
        )
        params = self.params
        plan = DemonstrationPlan(
            episodes=params.episodes, seed=params.seed, max_steps=params.max_steps,
            record=params.record, keep_failures=params.keep_failures,
        )  # fmt: skip
        scene, log = SceneControl(self), self.get_logger().info
        demonstrator = Demonstrator(plan, scene, self._states, self._publish, self.now_s, log)
        self._demonstrator: Demonstrator | SessionDemonstrator = demonstrator
        if params.session:
            self._demonstrator = SessionDemonstrator(SessionClient(self), scene, demonstrator, log)

    def health(self) -> Health:
        """Progress."""
        done = self._demonstrator.num_done
        values = {"episodes": done, "failed": self._demonstrator.num_failed}
        wanted = "the session's" if self.params.session else self.params.episodes
        return Health(OK, f"{done} of {wanted} episodes", values)

    def _on_task(self, state: TaskState) -> None:
        if anew := self._states.put(to_seconds(state.header.stamp), state):
            self.get_logger().warning(f"task states: {anew}")

    def _publish(self, delta: EndEffectorDelta, observation_s: float) -> None:
        self._sequence += 1
        message = to_message(
            delta, source="operator", sequence=self._sequence, stamp_s=self.now_s(),
            observation_s=observation_s, contract_hash=self._contract.hash,
        )  # fmt: skip
        self._publisher.publish(message)

    def work(self) -> None:
        """Demonstrate."""
        self._demonstrator.run(self.stop_asked)
        done, failed = self._demonstrator.num_done, self._demonstrator.num_failed
        self.get_logger().info(f"done: {done} episodes, {failed} failed")


def main() -> None:
    """Run the node."""
    sys.exit(run(OperatorNode))


if __name__ == "__main__":
    main()
