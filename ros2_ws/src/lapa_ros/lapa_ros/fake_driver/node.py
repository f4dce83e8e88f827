# SPDX-License-Identifier: Apache-2.0
"""`fake_driver_node`: an arm behind the topics and services of Interbotix's `xs_sdk`, for tests and for trying.

Faults are injected on the topic `fake_fault` (std_msgs/String): `stuck shoulder`, `overload elbow`, `sag shoulder`,
`limp`, `object 0.05`, `dead_bus`, `silent`, `mend`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from lapa_core.errors import ActionError
from lapa_core.robot.contract import load_contract
from lapa_ros import qos
from lapa_ros.fake_driver.arm import GRIPPER, MOTOR_IDS, FakeArm
from lapa_ros.interbotix_link import SERVICES, load_interfaces, messages_here
from lapa_ros.params import DRIVER_MESSAGES, declare, param

_GAINS = {
    "kp_pos": "Position_P_Gain", "ki_pos": "Position_I_Gain", "kd_pos": "Position_D_Gain",
    "k1": "Feedforward_1st_Gain", "k2": "Feedforward_2nd_Gain",
    "kp_vel": "Velocity_P_Gain", "ki_vel": "Velocity_I_Gain",
}  # fmt: skip
"""Field of a request -> register."""
REBOOT_S = 1.0
"""How long the driver waits for a motor that it reboots [s]."""
RATE_HZ = 100.0
"""Of joint states, as the driver's [Hz]."""


@dataclass(frozen=True, kw_only=True)
class FakeDriverParams:
    """Parameters of `fake_driver_node`."""

    contract: str = param("wx250s", "Robot contract whose arm is behind the driver.")
    messages: str = param(
        "auto",
        "Package of the driver's interfaces; auto is Interbotix's where it is installed, or ours.",
        choices=("auto", *DRIVER_MESSAGES),
    )
    start: str = param("sleep", "Pose at start.", choices=("sleep", "ready"))


class FakeDriverNode(Node):
    """Subscribes commands/joint_group and commands/joint_single, publishes joint_states, serves the driver's services.

    Attributes:
        arm: the fake motors.
    """

    def __init__(self, **kwargs: Any):
        super().__init__("xs_sdk", **kwargs)
        self.params = declare(self, FakeDriverParams)
        contract = load_contract(self.params.contract)
        self._model = contract.arm
        start_rad = (
            self._model.sleep_rad.tolist()
            if self.params.start == "sleep"
            else list(contract.ready_joints_rad)
        )
        self.arm = FakeArm(self._model, start_rad)
        package = self.params.messages
        messages, services = load_interfaces(messages_here() if package == "auto" else package)
        self._publisher = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self.create_subscription(
            messages.JointGroupCommand, "commands/joint_group", self._on_group, qos.JOINT_STATES
        )
        self.create_subscription(
            messages.JointSingleCommand, "commands/joint_single", self._on_single, qos.JOINT_STATES
        )
        self.create_subscription(String, "fake_fault", self._on_fault, qos.EVENTS)
        for name, kind in SERVICES.items():
            self.create_service(getattr(services, kind), name, getattr(self, f"_{name}"))
        self._stepped_s = self._now_s()
        self.create_timer(1.0 / RATE_HZ, self._step)

    def _now_s(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _step(self) -> None:
        now_s = self._now_s()
        self.arm.step(now_s, max(0.0, now_s - self._stepped_s))
        self._stepped_s = now_s
        if self.arm.silent:
            return
        names, positions = self.arm.joint_states()
        message = JointState(name=names, position=positions)
        message.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _on_group(self, message: Any) -> None:
        self.arm.command(self.arm.names("group", message.name), list(message.cmd), self._now_s())

    def _on_single(self, message: Any) -> None:
        self.arm.command(self.arm.names("single", message.name), [message.cmd], self._now_s())

    def _on_fault(self, message: String) -> None:
        try:
            self.arm.inject(message.data)
        except (ActionError, ValueError) as error:
            self.get_logger().error(str(error))

    def _get_robot_info(self, request: Any, response: Any) -> Any:
        """Answer as the driver: a gripper is described by its left finger, and named so."""
        names = self.arm.names(request.cmd_type, request.name)
        if not names:
            return response
        first = names[0]
        response.mode, response.profile_type = self.arm.mode[first], self.arm.profile_type[first]
        response.num_joints = len(names)
        response.name = ["all", "arm"] if request.name == "all" else [request.name]
        in_joint_states, _ = self.arm.joint_states()
        for name in names:
            low, high, speed, sleep = self._limits(name)
            shown = "left_finger" if name == GRIPPER else name
            response.joint_names.append(shown)
            response.joint_ids.append(MOTOR_IDS[name])
            response.joint_lower_limits.append(low)
            response.joint_upper_limits.append(high)
            response.joint_velocity_limits.append(speed)
            response.joint_sleep_positions.append(sleep)
            response.joint_state_indices.append(in_joint_states.index(shown))
        return response

    def _limits(self, name: str) -> tuple[float, float, float, float]:
        """Return low, high, speed and sleep position of a joint [rad, rad/s]; of the gripper, the left finger's [m]."""
        model = self._model
        if name == GRIPPER:
            closed_m, open_m = model.finger_gap_m
            return closed_m / 2.0, open_m / 2.0, 1.0, 0.0
        index = model.joint_names.index(name)
        low, high, speed, sleep = np.array(
            [model.lower_rad, model.upper_rad, model.velocity_rad_s, model.sleep_rad]
        )[:, index].tolist()
        return low, high, speed, sleep

    def _set_operating_modes(self, request: Any, response: Any) -> Any:
        names = self.arm.names(request.cmd_type, request.name)
        self.arm.set_mode(
            names,
            request.mode,
            request.profile_type,
            request.profile_velocity,
            request.profile_acceleration,
        )
        return response

    def _get_motor_registers(self, request: Any, response: Any) -> Any:
        response.values = self.arm.read(self.arm.names(request.cmd_type, request.name), request.reg)
        return response

    def _set_motor_registers(self, request: Any, response: Any) -> Any:
        self.arm.write(self.arm.names(request.cmd_type, request.name), request.reg, request.value)
        return response

    def _set_motor_pid_gains(self, request: Any, response: Any) -> Any:
        names = self.arm.names(request.cmd_type, request.name)
        for field, register in _GAINS.items():
            self.arm.write(names, register, getattr(request, field))
        return response

    def _reboot_motors(self, request: Any, response: Any) -> Any:
        """Reboot motors, each while the driver does nothing else, not even tell the joint states."""
        only_failed = request.smart_reboot and request.cmd_type == "group"
        for name in self.arm.names(request.cmd_type, request.name):
            if self.arm.reboot([name], on=request.enable, only_failed=only_failed):
                time.sleep(REBOOT_S)
        return response

    def _torque_enable(self, request: Any, response: Any) -> Any:
        self.arm.set_torque(self.arm.names(request.cmd_type, request.name), request.enable)
        return response


def main() -> None:
    """Run the node until it is interrupted."""
    rclpy.init()
    node = FakeDriverNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
