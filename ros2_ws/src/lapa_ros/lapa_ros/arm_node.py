# SPDX-License-Identifier: Apache-2.0
"""`arm`: end-effector deltas in, joint commands out. A shell around `ArmLogic`, which decides everything."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import numpy as np
from lapa_msgs.msg import ArmState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from lapa_core.errors import ActionError, ContractError
from lapa_core.robot.contract import load_contract
from lapa_core.robot.kinematics import forward_kinematics
from lapa_core.supervisor import STOP_LIMIT_S
from lapa_ros import qos
from lapa_ros.arm_backends import Backend, DryRunBackend, TopicBackend
from lapa_ros.arm_gate import CommandGate
from lapa_ros.arm_logic import ArmLogic, JointMove, Mode
from lapa_ros.arm_sources import SourceArbiter
from lapa_ros.clock import to_seconds
from lapa_ros.deltas import FRAME, to_command
from lapa_ros.diagnostics import ERROR, OK, WARN, Health
from lapa_ros.geometry import to_pose
from lapa_ros.interbotix_backend import InterbotixBackend
from lapa_ros.interbotix_link import RosDriverLink, open_topics
from lapa_ros.interbotix_manipulator import PACKAGE, Manipulator
from lapa_ros.lifecycle import ManagedNode, run
from lapa_ros.realtime import take_priority
from lapa_ros.troubles import Troubles

PARK_SLACK_S = 2.0
"""How much longer than its own duration a park may take before the node ends without it [s]."""


class ArmNode(ManagedNode):
    """Subscribes delta (and joint_states), publishes joint_commands (or joint_states) and arm_state."""

    def __init__(self, **kwargs: object):
        super().__init__("arm", **kwargs)
        self._logic: ArmLogic | None = None
        self._backend: TopicBackend | None = None
        self._manipulator: Manipulator | None = None
        self._parks = self._was_stopped = False

    def setup(self) -> None:
        """Load the contract and make the backend, the topics and the services."""
        self._contract = load_contract(self.params.contract)
        self._state_publisher = self.create_lifecycle_publisher(ArmState, "arm_state", qos.STATE)
        sources = SourceArbiter(self.params.sources, self.params.handover_s)
        gate = CommandGate(self._contract, self.params.max_command_age_s)
        self._logic = ArmLogic(
            self._contract,
            self._make_backend(),
            gate,
            sources,
            self.say,
            self.params.move_speed_rad_s,
        )
        if self._was_stopped:
            self._logic.stop()
        self._troubles = Troubles(self.say)
        self._warn_of_a_slow_park()
        # Requests that wait together are served in this order: what ends a motion is the last, and stays.
        services = {
            "clear": self._clear,
            "ready": self._ready,
            "park": self._park,
            "release": self._release,
            "hold": self._hold,
            "stop": self._stop,
        }
        for name, handler in services.items():
            self.create_service(Trigger, f"~/{name}", handler)
        self.get_logger().info(
            f"{self.params.backend} arm {self._contract.robot_model}, contract {self._contract.name} "
            f"{self._contract.hash[:12]}, obeys {self.params.sources}"
        )

    def start(self) -> None:
        """Begin to count, to listen and to send, from wherever the arm is by now."""
        gc.collect()
        gc.freeze()  # a full collection takes 20 ms; what was made until now is not looked at again
        self._logic.begin()
        self._publish_state()  # counts from 0, in every recording, before the first delta is applied
        self._delta_subscription = self.create_subscription(
            DeltaMsg, "delta", self._on_delta, qos.DELTA
        )
        self._tick_timer = self.create_timer(1.0 / self._contract.command_rate_hz, self._tick)
        self._state_timer = self.create_timer(1.0 / self.params.state_rate_hz, self._publish_state)

    def stop(self) -> None:
        """Stop listening first; then hold, and say so."""
        self.destroy_subscription(self._delta_subscription)
        self.destroy_timer(self._tick_timer)
        self.destroy_timer(self._state_timer)
        self._logic.halt(self.unfinished() or "the arm node is deactivated")
        self._logic.tick(self.now_s())
        self._publish_state()

    def before_shutdown(self) -> None:
        """Start to park where that is wanted; the node goes on spinning until `may_shut_down`."""
        if not self.params.park_on_shutdown or self._logic is None:
            return
        self._parks = True
        try:
            self._logic.park(self.now_s())
        except ActionError as error:
            self.get_logger().error(f"cannot park: {error}")
        else:
            self.get_logger().info(f"parking takes {self._logic.move_left_s(self.now_s()):.1f} s")
            self._publish_state()  # at once: who is interrupted together with this node looks whether it parks

    def may_shut_down(self) -> bool:
        """Return whether no park is under way."""
        return self._logic is None or self._logic.mode is not Mode.PARKING

    def shutdown_limit_s(self) -> float:
        """Return the time that the park takes at its speed, and a little more [s]."""
        return self._logic.move_left_s(self.now_s()) + PARK_SLACK_S

    def unfinished(self) -> str:
        """Say where the arm stays when it was to park and has not."""
        if not self._parks or self._logic is None or self._logic.mode is Mode.PARKED:
            return ""
        measured = self._logic.measured()
        if measured is None:
            return (
                "NOT PARKED: the arm was never measured and was sent nothing; torque is as it was"
            )
        off_rad = float(np.abs(measured.joints_rad - self._contract.arm.sleep_rad).max())
        if off_rad < ArmLogic.ARRIVED_RAD:
            return ""
        return (
            f"NOT PARKED, {off_rad:.2f} rad from the sleep pose ({self._logic.mode.name.lower()}: "
            f"{self._logic.reason}): the arm holds its measured joints, torque stays on; "
            "support the arm before you cut it"
        )

    def _warn_of_a_slow_park(self) -> None:
        arm, speed_rad_s = self._contract.arm, self.params.move_speed_rad_s
        from_above = arm.upper_rad - arm.sleep_rad > arm.sleep_rad - arm.lower_rad
        furthest_rad = np.where(from_above, arm.upper_rad, arm.lower_rad)
        move = JointMove(furthest_rad, arm.sleep_rad, speed_rad_s, 0.0)
        longest_s = -move.over_s(0.0) + ArmLogic.SETTLE_S + PARK_SLACK_S
        if self.params.park_on_shutdown and longest_s > STOP_LIMIT_S:
            self.get_logger().warning(
                f"to park can take {longest_s:.0f} s at a move_speed_rad_s of {speed_rad_s:g}; "
                f"`lapa up` and the launch files kill a node {STOP_LIMIT_S:g} s after its SIGINT, "
                "and the arm then stays where it is; raise the speed, or call ~/park first"
            )

    def teardown(self) -> None:
        """Forget the arm; a latched stop outlives it."""
        if self._logic is not None:
            self._was_stopped = self._logic.mode is Mode.STOPPED
        if self._manipulator is not None:
            self._manipulator.close()
        self._logic = self._backend = self._manipulator = None

    def health(self) -> Health:
        """Holding is worth a warning, missing joint states an error."""
        logic = self._logic
        trouble = logic.trouble()
        level = {Mode.TRACKING: OK, Mode.PARKED: OK, Mode.WAITING: ERROR}.get(logic.mode, WARN)
        values = {"mode": logic.mode.name, "source": logic.source, "applied": logic.applied, "refused": logic.refused,
                  "last refusal": logic.last_refusal, "latency [s]": logic.latency_s}  # fmt: skip
        if self._backend is not None:
            values["late joint states"] = self._backend.order.num_late
            values["clock set back"] = self._backend.order.num_anew
        values["trouble"] = trouble
        if trouble:
            level = ERROR
        return Health(
            level if self.active else OK, logic.reason if self.active else "inactive", values
        )

    def _make_backend(self) -> Backend:
        if self.params.backend == "dry_run":
            self._joint_publisher = self.create_lifecycle_publisher(
                JointState, "joint_states", qos.JOINT_STATES
            )
            return DryRunBackend(self._contract, self.now_s)
        if self.params.backend == "interbotix":
            self._backend = self._make_interbotix()
        else:
            self._joint_publisher = self.create_lifecycle_publisher(
                JointState, "joint_commands", qos.JOINT_COMMANDS
            )
            self._backend = TopicBackend(self._contract, self._publish_joints)
        self.create_subscription(
            JointState, "joint_states", self._on_joint_states, qos.JOINT_STATES
        )
        return self._backend

    def _make_interbotix(self) -> InterbotixBackend:
        if self.get_parameter("use_sim_time").value:
            raise ContractError(
                "use_sim_time is true; the watchdog of a real arm needs a real clock"
            )
        if self.params.driver_package == PACKAGE:
            self._manipulator = Manipulator(
                self, self._contract.robot_model, self.interrupted.is_set
            )
            ends = self._manipulator.ends
        else:
            ends = open_topics(self, self.params.driver_package)
        if refused := take_priority(self.params.realtime_priority):
            self.get_logger().warning(refused)
        has_motors = self.params.driver_has_motors
        link = RosDriverLink(self, ends)
        return InterbotixBackend(self._contract, link, self.say, has_motors=has_motors)

    def _publish_joints(self, names: list[str], positions: list[float]) -> None:
        message = JointState(name=names, position=positions)
        message.header.stamp = self.get_clock().now().to_msg()
        self._joint_publisher.publish(message)

    def _on_joint_states(self, message: JointState) -> None:
        stamp_s, now_s = to_seconds(message.header.stamp), self.now_s()
        self._troubles.look(now_s)
        try:
            if anew := self._backend.receive(message.name, message.position, stamp_s):
                self.get_logger().warning(f"joint states: {anew}")
        except ActionError as error:
            text = f"joint states are ignored: {error}"
            self._troubles.happened("unusable joint states", text, now_s, "error")

    def _on_delta(self, message: DeltaMsg) -> None:
        self._logic.command(to_command(message), self.now_s())

    def _tick(self) -> None:
        mode = self._logic.mode
        self._logic.poll()
        self._logic.tick(self.now_s())
        if self.params.backend == "dry_run":
            measured = self._logic.measured()
            names = list(self._contract.arm.joint_names)
            self._publish_joints(names, measured.joints_rad.tolist())
        if self._logic.mode is not mode:
            self._publish_state()

    def _publish_state(self) -> None:
        logic, measured = self._logic, self._logic.measured()
        state = ArmState(
            mode=int(logic.mode),
            reason=logic.reason,
            joint_names=list(self._contract.arm.joint_names),
        )
        state.header.stamp = self.get_clock().now().to_msg()
        state.header.frame_id = FRAME
        state.commanded_pose = to_pose(logic.controller.target_44)
        state.commanded_gripper = logic.controller.gripper
        if logic.sent_rad is not None:
            state.commanded_joints = logic.sent_rad.tolist()
        if measured is not None:
            state.measured_pose = to_pose(
                forward_kinematics(self._contract.arm, measured.joints_rad)
            )
            state.measured_joints = measured.joints_rad.tolist()
            state.measured_gripper = measured.gripper
        if logic.last is not None:
            state.last_applied_source, state.last_applied_sequence = (
                logic.last.source,
                logic.last.sequence,
            )
        state.last_latency_s = logic.latency_s
        state.applied, state.refused, state.last_refusal = (
            logic.applied,
            logic.refused,
            logic.last_refusal,
        )
        state.contract_hash = self._contract.hash
        self._state_publisher.publish(state)

    def _stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, self._logic.stop)

    def _clear(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, lambda: self._logic.clear(self.now_s()))

    def _hold(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, lambda: self._logic.hold(self.now_s()))

    def _ready(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, lambda: self._logic.move_to_ready(self.now_s()), fresh=True)

    def _park(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, lambda: self._logic.park(self.now_s()), fresh=True)

    def _release(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, lambda: self._logic.release(self.now_s()), fresh=True)

    def _answer(
        self, response: Trigger.Response, act: Callable[[], str], *, fresh: bool = False
    ) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, "the arm node is not active"
            return response
        try:
            if fresh:
                self._logic.check_fresh(self.now_s())
            response.success, response.message = True, act()
        except ActionError as error:
            response.success, response.message = False, str(error)
        self._publish_state()
        return response


def main() -> None:
    """Run the node."""
    sys.exit(run(ArmNode))


if __name__ == "__main__":
    main()
