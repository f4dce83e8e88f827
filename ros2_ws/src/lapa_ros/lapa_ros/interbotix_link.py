# SPDX-License-Identifier: Apache-2.0
"""The topics and services of Interbotix's driver, seen from the arm node."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from rclpy.client import Client
from rclpy.lifecycle import LifecycleNode

from lapa_core.errors import ActionError, SetupError
from lapa_ros import qos
from lapa_ros.interbotix_backend import Answer

_PUBLISHERS = {
    "joint_states": (1, "publish joint states"),
    "commands/joint_group": (1, "command the arm"),
    "commands/joint_single": (1, "command single joints"),
    "commands/joint_trajectory": (0, "send trajectories"),
}
"""Topic -> how many may publish it, the driver or this node, and what they do."""
SERVICES = {
    "get_robot_info": "RobotInfo",
    "set_operating_modes": "OperatingModes",
    "get_motor_registers": "RegisterValues",
    "set_motor_registers": "RegisterValues",
    "torque_enable": "TorqueEnable",
}
"""Service -> its type."""


def load_interfaces(package: str) -> tuple[ModuleType, ModuleType]:
    """Return the modules `msg` and `srv` of one of `lapa_ros.params.DRIVER_MESSAGES`.

    Raises:
        SetupError: it is not installed.
    """
    try:
        return importlib.import_module(f"{package}.msg"), importlib.import_module(f"{package}.srv")
    except ModuleNotFoundError as error:
        raise SetupError(
            f"the message package {package} is not installed. For an arm: build github.com/Interbotix/"
            "interbotix_ros_core (branch humble or jazzy) in a workspace and source it. For the fake driver: "
            "build this workspace (`make setup`) and set driver_messages to lapa_xs_msgs"
        ) from error


class RosDriverLink:
    """A `DriverLink` on an arm node's publishers and clients, which the node destroys when it is cleaned up."""

    def __init__(self, node: LifecycleNode, package: str):
        messages, services = load_interfaces(package)
        self._node = node
        self._group_type, self._single_type = (
            messages.JointGroupCommand,
            messages.JointSingleCommand,
        )
        self._arm = node.create_lifecycle_publisher(
            self._group_type, "commands/joint_group", qos.JOINT_COMMANDS
        )
        self._gripper = node.create_lifecycle_publisher(
            self._single_type, "commands/joint_single", qos.JOINT_COMMANDS
        )
        self._types = {name: getattr(services, kind) for name, kind in SERVICES.items()}
        self._clients: dict[str, Client] = {
            name: node.create_client(kind, name) for name, kind in self._types.items()
        }

    def ask(self, service: str, fields: dict[str, Any]) -> Answer:
        """Send a request.

        Raises:
            ActionError: the service is not there.
        """
        client = self._clients[service]
        if not client.service_is_ready():
            raise ActionError(
                f"the driver's service {client.srv_name} is not there; start xsarm_control with this robot_name"
            )
        return client.call_async(self._types[service].Request(**fields))

    def others(self) -> str:
        """Return who else commands the arm or publishes its joint states, or ""."""
        for topic, (allowed, what) in _PUBLISHERS.items():
            name = self._node.resolve_topic_name(topic)
            if (count := self._node.count_publishers(name)) > allowed:
                may = "only one may" if allowed else "none may"
                return f"{count} nodes {what} ({name}); {may} (one that was killed counts for 20 s)"
        return ""

    def command_arm(self, joints_rad: list[float]) -> None:
        """Publish six joint positions [rad]."""
        self._arm.publish(self._group_type(name="arm", cmd=joints_rad))

    def command_gripper(self, gap_m: float) -> None:
        """Publish the gap of the fingers [m]."""
        self._gripper.publish(self._single_type(name="gripper", cmd=gap_m))
