# SPDX-License-Identifier: Apache-2.0
"""`operator`: a scripted person who demonstrates tasks in the simulator, for recording. Ends when it is done."""

from __future__ import annotations

import sys
import threading
import traceback

from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_msgs.msg import TaskState

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.errors import LapaError
from lapa_core.robot.contract import load_contract
from lapa_ros import qos
from lapa_ros.clock import to_seconds
from lapa_ros.deltas import to_message
from lapa_ros.demonstrator import DemonstrationPlan, Demonstrator
from lapa_ros.diagnostics import OK, Health
from lapa_ros.lifecycle import ManagedNode, run
from lapa_ros.mailbox import Mailbox
from lapa_ros.scene import SceneControl
from lapa_ros.session_demonstrator import SessionClient, SessionDemonstrator


class OperatorNode(ManagedNode):
    """Subscribes task_state, publishes delta, calls the services of sim, arm and recorder."""

    def __init__(self, **kwargs: object):
        super().__init__("operator", **kwargs)
        self._stop_asked = threading.Event()
        self._thread: threading.Thread | None = None
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

    def start(self) -> None:
        """Begin the session in its thread."""
        self._stop_asked.clear()
        self._thread = threading.Thread(target=self._run, name="demonstrator", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the session to end; the arm then holds by its watchdog."""
        self._stop_asked.set()

    def may_shut_down(self) -> bool:
        """Return whether the session has ended."""
        return self._thread is None or not self._thread.is_alive()

    def before_shutdown(self) -> None:
        """Ask the session to end while answers to its calls still arrive."""
        self._stop_asked.set()

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

    def _run(self) -> None:
        try:
            self._demonstrator.run(self._stop_asked)
            self.get_logger().info(
                f"done: {self._demonstrator.num_done} episodes, {self._demonstrator.num_failed} failed"
            )
            self.end(0)
        except LapaError as error:
            self.get_logger().error(f"session ended: {error}")
            self.end(1)
        except Exception:  # the thread's boundary: without this it would die unseen
            self.get_logger().error(f"session ended:\n{traceback.format_exc()}")
            self.end(1)


def main() -> None:
    """Run the node."""
    sys.exit(run(OperatorNode))


if __name__ == "__main__":
    main()
