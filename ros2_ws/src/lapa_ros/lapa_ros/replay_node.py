# SPDX-License-Identifier: Apache-2.0
"""`replay`: plays a recorded episode through decoding, un-normalising and the arm's safety, and ends.

The step before a policy may move an arm: if a recorded demonstration does not come out right, no policy will.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from lapa_msgs.msg import ArmState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from std_srvs.srv import Trigger

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.data.replay import Replay, read_replay, through_bins
from lapa_core.robot.contract import load_contract
from lapa_ros import qos
from lapa_ros.arm_logic import ArmLogic
from lapa_ros.arm_report import ARM_PARKS_S
from lapa_ros.deltas import to_message
from lapa_ros.diagnostics import OK, Health
from lapa_ros.geometry import from_pose
from lapa_ros.lifecycle import run
from lapa_ros.remote import GraphError, call, wait_until
from lapa_ros.replay_player import SOURCE, Player, PlayReport, approach, check
from lapa_ros.worker_node import WorkerNode

ARRIVED_COMMAND_RAD = 1e-3
"""An arm whose ready move was not ended on its way was sent to the ready pose within this [rad]."""


class ReplayNode(WorkerNode):
    """Subscribes arm_state, publishes delta, calls arm/ready or arm/hold."""

    READY_LIMIT_S = 20.0
    """The arm must have reached its ready pose within this time [s]."""

    def __init__(self, **kwargs: object):
        super().__init__("replay", **kwargs)
        self._state: ArmState | None = None
        self._rest: ArmState | None = None
        self._stopped: ArmState | None = None
        self._sequence = 0

    def setup(self) -> None:
        """Read the episode, check that it belongs to this robot, make topics and clients."""
        self._contract = load_contract(self.params.contract)
        replay = read_replay(Path(self.params.path), self.params.episode)
        if self.params.checkpoint:
            replay = through_bins(replay, Path(self.params.checkpoint))
        self._replay = replay
        self._period_s = check(replay, self._contract, self.params.speed)
        self._what = f"{replay.label}: {len(replay.actions)} deltas, {replay.instruction!r}"
        self._publisher = self.create_publisher(DeltaMsg, "delta", qos.DELTA)
        self._subscription = self.create_subscription(
            ArmState, "arm_state", self._on_arm, qos.STATES
        )
        self._ready = self.create_client(Trigger, "arm/ready")
        self._hold = self.create_client(Trigger, "arm/hold")

    def health(self) -> Health:
        """Say what is played."""
        return Health(OK, self._what, {"sent": self._sequence})

    def _on_arm(self, state: ArmState) -> None:
        if state.mode != ArmState.MODE_TRACKING:
            self._rest = state
        if state.mode == ArmState.MODE_STOPPED:
            self._stopped = state
        self._state = state

    def _publish(self, delta: EndEffectorDelta) -> int:
        self._sequence += 1
        message = to_message(
            delta, source=SOURCE, sequence=self._sequence, stamp_s=self.now_s(), observation_s=None,
            contract_hash=self._contract.hash,
        )  # fmt: skip
        self._publisher.publish(message)
        return self._sequence

    def work(self) -> None:
        """Prepare, go to where the episode begins, play it, hold."""
        self._prepare()
        following = self.params.ready and self._approach()
        self.get_logger().info(f"playing {self._what}")
        self.get_logger().info(str(self._play(self._replay, following)))
        call(self._hold, Trigger.Request())

    def _play(self, replay: Replay, following: bool) -> PlayReport:
        player = Player(
            replay, self._period_s, self._publish, lambda: self._state, lambda: self._rest
        )
        return player.run(self.stop_asked, following=following)

    def _approach(self) -> bool:
        """Go on from the ready pose to where the episode begins; return whether the arm had to move.

        Raises:
            GraphError: the arm does not hold in its ready pose: it was held on the way, or did not arrive.
        """
        state, ready_rad = self._state, self._contract.ready_joints_rad
        off_rad = float(np.abs(np.array(state.measured_joints) - ready_rad).max())
        short_rad = float(np.abs(np.array(state.commanded_joints) - ready_rad).max())
        if off_rad > ArmLogic.ARRIVED_RAD or short_rad > ARRIVED_COMMAND_RAD:
            raise GraphError(
                f"the arm holds {max(off_rad, short_rad):.2f} rad from its ready pose ({state.reason}); "
                "see why, and start again"
            )
        way = approach(self._replay, self._contract, from_pose(self._state.commanded_pose))
        if not len(way.actions):
            return False
        length_m = float(np.linalg.norm(way.actions[:, :3].sum(axis=0)))
        self.get_logger().info(f"moving {1e3 * length_m:.0f} mm to where the episode begins")
        self._play(way, following=False)
        return True

    def _prepare(self) -> None:
        """Wait for the arm, and bring it to its ready pose, or anchor it where it is."""
        wait_until(
            lambda: self._state is not None and self._state.mode != ArmState.MODE_WAITING,
            "an arm with joint states", self.READY_LIMIT_S, self.stop_asked,
        )  # fmt: skip
        call(self._ready if self.params.ready else self._hold, Trigger.Request())
        self._state = self._stopped = None  # what follows must be said after that
        try:
            wait_until(self._holds, "the arm to hold", self.READY_LIMIT_S, self.stop_asked)
        except GraphError:
            self._end_ready_move()
            raise

    def _end_ready_move(self) -> None:
        """Hold an arm that is on its way still, unless it parks, interrupted together with this node."""
        time.sleep(ARM_PARKS_S)
        if self._state is None or self._state.mode == ArmState.MODE_READYING:
            call(self._hold, Trigger.Request())

    def _holds(self) -> bool:
        if self._stopped is not None:  # whoever clears it does not ask for a replay
            raise GraphError(f"the arm was stopped: {self._stopped.reason}; start again")
        return self._state is not None and self._state.mode == ArmState.MODE_HOLDING


def main() -> None:
    """Run the node."""
    sys.exit(run(ReplayNode))


if __name__ == "__main__":
    main()
