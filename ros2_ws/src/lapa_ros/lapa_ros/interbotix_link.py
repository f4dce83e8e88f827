# SPDX-License-Identifier: Apache-2.0
"""The topics and services of Interbotix's driver, seen from the arm node."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, cast

from rclpy.client import Client
from rclpy.lifecycle import LifecycleNode

from lapa_core.errors import ActionError, SetupError
from lapa_ros import qos
from lapa_ros.interbotix_backend import Answer
from lapa_ros.params import DRIVER_MESSAGES

_TOPICS = {
    "joint_states": "publish joint states",
    "commands/joint_group": "command the arm",
    "commands/joint_single": "command single joints",
    "commands/joint_trajectory": "send trajectories",
}
"""Topic -> what those do who publish it; only one may, the driver or this process."""
SERVICES = {
    "get_robot_info": "RobotInfo",
    "set_operating_modes": "OperatingModes",
    "set_motor_pid_gains": "MotorGains",
    "get_motor_registers": "RegisterValues",
    "set_motor_registers": "RegisterValues",
    "torque_enable": "TorqueEnable",
    "reboot_motors": "Reboot",
}
"""Service -> its type."""


class DriverEnds(NamedTuple):
    """This process's ends of the driver's topics and services."""

    write_group: Callable[[str, list[float]], None]
    """Publishes positions of a group [rad]."""
    write_single: Callable[[str, float], None]
    """Publishes the position of a joint [rad], of the gripper its gap [m]."""
    clients: dict[str, Client]
    """By the name of the service."""
    sends_trajectories: bool
    """Whether this process has a publisher of trajectories too."""


def messages_here() -> str:
    """Return which of `lapa_ros.params.DRIVER_MESSAGES` there is: Interbotix's where it is installed, or ours."""
    theirs, ours = DRIVER_MESSAGES
    return theirs if importlib.util.find_spec(theirs) else ours


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
            "build this workspace (`make setup`) and set driver_package to lapa_xs_msgs"
        ) from error


def open_topics(node: LifecycleNode, package: str) -> DriverEnds:
    """Talk to the driver with the messages of `package`; the node owns the ends.

    Raises:
        SetupError: they are not installed.
    """
    messages, services = load_interfaces(package)
    group = node.create_lifecycle_publisher(
        messages.JointGroupCommand, "commands/joint_group", qos.JOINT_COMMANDS
    )
    single = node.create_lifecycle_publisher(
        messages.JointSingleCommand, "commands/joint_single", qos.JOINT_COMMANDS
    )
    return DriverEnds(
        lambda name, values: group.publish(messages.JointGroupCommand(name=name, cmd=values)),
        lambda name, value: single.publish(messages.JointSingleCommand(name=name, cmd=value)),
        {
            name: node.create_client(getattr(services, kind), name)
            for name, kind in SERVICES.items()
        },
        sends_trajectories=False,
    )


class RosDriverLink:
    """A `DriverLink` on such ends; `node` looks into the graph."""

    def __init__(self, node: LifecycleNode, ends: DriverEnds):
        self._node, self._ends = node, ends

    def ask(self, service: str, fields: dict[str, Any]) -> Answer:
        """Send a request.

        Raises:
            ActionError: the service is not there.
        """
        client = self._ends.clients[service]
        if not client.service_is_ready():
            raise ActionError(
                f"the driver's service {client.srv_name} is not there; start xsarm_control with this robot_name"
            )
        return client.call_async(cast(Any, client.srv_type).Request(**fields))

    def others(self) -> str:
        """Return who else commands the arm or publishes its joint states, or ""."""
        for topic, what in _TOPICS.items():
            allowed = int(self._ends.sends_trajectories or not topic.endswith("joint_trajectory"))
            name = self._node.resolve_topic_name(topic)
            if (count := self._node.count_publishers(name)) > allowed:
                may = "only one may" if allowed else "none may"
                return f"{count} nodes {what} ({name}); {may} (one that was killed counts for 20 s)"
        return ""

    def command_arm(self, joints_rad: list[float]) -> None:
        """Publish six joint positions [rad]."""
        self._ends.write_group("arm", joints_rad)

    def command_gripper(self, gap_m: float) -> None:
        """Publish the gap of the fingers [m]."""
        self._ends.write_single("gripper", gap_m)
