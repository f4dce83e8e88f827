# SPDX-License-Identifier: Apache-2.0
"""`teleop`: a person's hand in, end-effector deltas out. A shell around `Teleop`, which decides everything."""

from __future__ import annotations

import sys
import time

from lapa_msgs.msg import ArmState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from rclpy.client import Client
from rclpy.task import Future
from rclpy.timer import Timer
from sensor_msgs.msg import JointState, Joy
from std_srvs.srv import Trigger

from lapa_core.errors import ActionError
from lapa_core.robot.contract import load_contract
from lapa_core.robot.models import get_arm_model
from lapa_ros import qos
from lapa_ros.arm_report import ARM_PARKS_S, read_report
from lapa_ros.clock import is_zero, to_seconds
from lapa_ros.deltas import to_message
from lapa_ros.diagnostics import OK, WARN, Health
from lapa_ros.geometry import from_pose
from lapa_ros.lifecycle import ManagedNode, run
from lapa_ros.params import TeleopParams
from lapa_ros.stamps import Arrival, StampOrder
from lapa_ros.teleop_controls import OWN_AXES, OWN_BUTTONS, ControlMap
from lapa_ros.teleop_leader import LeaderMotion
from lapa_ros.teleop_logic import SWITCH_OPEN, ArmSeen, Motion, RateMotion, Speeds, Teleop
from lapa_ros.troubles import Troubles

SERVICES = {"stop": "arm/stop", "clear": "arm/clear", "ready": "arm/ready", "hold": "arm/hold",
            **{verb: f"session/{verb}" for verb in ("record", "save", "discard", "redo", "undo")}}  # fmt: skip
"""Button -> the service that it calls."""
ARM_ANSWERS_S, SESSION_ANSWERS_S = 1.0, 10.0
"""An answer that takes longer is missed aloud [s]; the session's wait for the disk and the judge."""


def control_map(params: TeleopParams) -> ControlMap:
    """Return the map of the device that publishes `joy`.

    Raises:
        ContractError: a line of it cannot be read.
    """
    axes, buttons = {
        "keyboard": (OWN_AXES, OWN_BUTTONS),
        "spacemouse": (params.spacemouse_axes, params.spacemouse_buttons),
    }.get(params.device, (params.joystick_axes, params.joystick_buttons))
    return ControlMap(axes, buttons, params.dead_zone)


class TeleopNode(ManagedNode):
    """Subscribes joy, arm_state and leader/joint_states; publishes delta; calls the arm's services."""

    def __init__(self, **kwargs: object):
        super().__init__("teleop", **kwargs)
        self._sequence = 0
        self._refused = 0
        self._arm_parks = False
        self._waits: Timer | None = None

    def setup(self) -> None:
        """Load the contract, read the map and make topics and clients."""
        params = self.params
        self._contract = load_contract(params.contract)
        self._map = control_map(params)
        motion = self._motion()
        self._logic = Teleop(self._contract, motion, params.input_timeout_s, self.say)
        self._order, self._troubles = StampOrder(), Troubles(self.say)
        self._asked: dict[Future, tuple[str, float]] = {}
        self._publisher = self.create_lifecycle_publisher(DeltaMsg, "delta", qos.DELTA)
        self._calls = {verb: self.create_client(Trigger, name) for verb, name in SERVICES.items()}
        self.create_subscription(ArmState, "arm_state", self._on_arm, qos.STATES)
        self.create_subscription(Joy, "joy", self._on_joy, qos.INPUT)
        if isinstance(motion, LeaderMotion):
            self._leader = motion
            self.create_subscription(JointState, "leader/joint_states", self._on_leader, qos.INPUT)
        self._warn_of_caps()

    def start(self) -> None:
        """Begin to look for what the hand does."""
        self._logic.begin()
        self._timer = self.create_timer(1.0 / self._contract.command_rate_hz, self._tick)

    def stop(self) -> None:
        """Send nothing more; the arm then holds by its watchdog, which does not watch the ready move: that is ended."""
        self.destroy_timer(self._timer)
        if self._logic.end():
            self._call("hold")

    def before_shutdown(self) -> None:
        """End a ready move while its answer still arrives, unless the arm, interrupted too, says that it parks."""
        if self._logic.end():
            self._waits = self.create_timer(ARM_PARKS_S, self._end_ready_move)

    def may_shut_down(self) -> bool:
        """Return whether the arm parks, has said that it holds, or is late to."""
        return self._waits is None and not any(
            verb == "hold" and time.monotonic() - asked_s <= ARM_ANSWERS_S
            for verb, asked_s in self._asked.values()
        )

    def unfinished(self) -> str:
        """Say what the arm may go on with."""
        waits = any(verb == "hold" for verb, _ in self._asked.values())
        return "the arm did not answer ~/hold: it may go on to its ready pose" if waits else ""

    def health(self) -> Health:
        """A hand that cannot move the arm is worth a warning, an open switch is not."""
        reason = self._logic.reason
        resting = reason in ("", SWITCH_OPEN)
        values = {"sent": self._logic.num_sent, "gripper": self._logic.gripper}
        return Health(OK if resting else WARN, reason or "moving", values)

    def _motion(self) -> Motion:
        params = self.params
        if params.motion == "leader":
            model = get_arm_model(params.leader_model)
            return LeaderMotion(model, params.leader_scale, params.input_timeout_s)
        speeds = Speeds(
            linear_m_s=params.linear_speed_m_s, angular_rad_s=params.angular_speed_rad_s,
            slow_factor=params.slow_factor, in_tool_frame=params.frame == "tool",
        )  # fmt: skip
        return RateMotion(speeds, 1.0 / self._contract.control_rate_hz)

    def _warn_of_caps(self) -> None:
        """Say where the contract makes the arm slower than the parameters ask for."""
        contract, params = self._contract, self.params
        for name, cap in (
            ("linear_speed_m_s", contract.max_translation_m * contract.control_rate_hz),
            ("angular_speed_rad_s", contract.max_rotation_rad * contract.control_rate_hz),
        ):
            if getattr(params, name) > cap:
                self.get_logger().warning(
                    f"{name} {getattr(params, name):g}: the contract caps it at {cap:g}"
                )

    def _on_arm(self, state: ArmState) -> None:
        now_s = self.now_s()
        self._arm_parks = state.mode == ArmState.MODE_PARKING
        pose_44 = from_pose(state.commanded_pose)
        report = read_report(state, now_s)
        self._logic.hear_arm(
            ArmSeen(report=report, gripper=state.commanded_gripper, tool_33=pose_44[:3, :3])
        )
        # What is refused of a policy meanwhile does not make the arm hold.
        ours = state.refused > self._refused and state.mode == ArmState.MODE_HOLDING
        if ours and self._logic.engaged:
            text = f"the arm refused a delta: {state.last_refusal}"
            self._troubles.happened("refused deltas", text, now_s)
        self._refused = state.refused

    def _on_joy(self, message: Joy) -> None:
        now_s, stamp = self.now_s(), message.header.stamp
        stamp_s = now_s if is_zero(stamp) else to_seconds(stamp)
        if self._order.judge(stamp_s) is Arrival.LATE:
            return
        if self._logic.is_old(stamp_s, now_s):
            text = f"joy is stamped {now_s - stamp_s:.2f} s ago and counts as silence; are the clocks in step?"
            self._troubles.happened("old input", text, now_s)
        try:
            controls = self._map.read(message.axes, message.buttons, stamp_s)
        except ActionError as error:  # counts as silence
            self._troubles.happened("unusable input", f"joy is ignored: {error}", now_s, "error")
            return
        verbs = self._logic.receive(controls, now_s)
        if not self.active:
            return
        for verb in verbs:
            self._call(verb)

    def _on_leader(self, message: JointState) -> None:
        stamp_s, now_s = to_seconds(message.header.stamp), self.now_s()
        try:
            if anew := self._leader.receive(message.name, message.position, stamp_s):
                self.get_logger().warning(f"leader: {anew}")
        except ActionError as error:
            self._troubles.happened("unusable leader", str(error), now_s, "error")

    def _tick(self) -> None:
        now_s = self.now_s()
        self._troubles.look(now_s)
        self._miss_answers()
        if verb := self._logic.ready_verb(now_s):
            self._call(verb)
        delta = self._logic.step(now_s)
        if delta is None:
            return
        self._sequence += 1
        self._publisher.publish(
            to_message(
                delta,
                source="operator",
                sequence=self._sequence,
                stamp_s=now_s,
                observation_s=None,
                contract_hash=self._contract.hash,
            )
        )

    def _end_ready_move(self) -> None:
        assert self._waits is not None, "its timer"
        self.destroy_timer(self._waits)
        self._waits = None
        if not self._arm_parks:  # or ~/hold would leave it in the air
            self._call("hold")

    def _call(self, verb: str) -> None:
        """Ask for what a button means; the answer is logged when it comes."""
        client: Client | None = self._calls.get(verb)
        if client is None or not client.service_is_ready():
            self.get_logger().error(f"{verb}: {SERVICES.get(verb, 'nothing')} is not there")
            return

        def answered(future: Future) -> None:
            self._asked.pop(future, None)
            if future.exception() is not None:
                self.get_logger().error(f"{verb}: {future.exception()}")
                return
            answer = future.result()
            self.say("info" if answer.success else "warn", f"{verb}: {answer.message}")

        future = client.call_async(Trigger.Request())
        self._asked[future] = (verb, time.monotonic())
        future.add_done_callback(answered)

    def _miss_answers(self) -> None:
        """Say which button has had no effect so far: its node may stand still."""
        for future, (verb, asked_s) in list(self._asked.items()):
            service = SERVICES[verb]
            limit_s = ARM_ANSWERS_S if service.startswith("arm/") else SESSION_ANSWERS_S
            if time.monotonic() - asked_s > limit_s:
                self._asked.pop(future)
                self.get_logger().error(f"{verb}: no answer from {service} for {limit_s:g} s")


def main() -> None:
    """Run the node."""
    sys.exit(run(TeleopNode))


if __name__ == "__main__":
    main()
