# SPDX-License-Identifier: Apache-2.0
"""Interbotix's own Python API, `InterbotixManipulatorXS`, as the arm node's way to the driver."""

from __future__ import annotations

import importlib
import time
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node

from lapa_core.errors import SetupError
from lapa_ros.interbotix_link import SERVICES, DriverEnds

PACKAGE = "interbotix_xs_modules"

_CLIENTS = {
    "get_robot_info": "srv_get_info",
    "set_operating_modes": "srv_set_op_modes",
    "set_motor_pid_gains": "srv_set_pids",
    "get_motor_registers": "srv_get_reg",
    "set_motor_registers": "srv_set_reg",
    "torque_enable": "srv_torque",
    "reboot_motors": "srv_reboot",
}
"""Service -> attribute of `InterbotixRobotXSCore`."""


class Manipulator:
    """`InterbotixManipulatorXS` on a node of its own, which the arm node's executor spins from then on.

    Its constructor waits without end for the driver and spins its node meanwhile, and most of its methods block or
    sleep (facts of the robot, 1.3). So it is built while the arm node is configured, before anything is spun, when the
    driver has been seen in the graph, and is given up after a limit; and only that of it is used which returns at
    once: what publishes commands, and its clients' asynchronous calls. It has no gripper interface: that one
    is for a gripper that is driven by effort.

    Attributes:
        ends: for a `RosDriverLink`.
    """

    LIMIT_S = 10.0
    """How long the driver may take to appear, and then to answer [s]."""

    def __init__(self, node: LifecycleNode, robot_model: str):
        """Build it in the namespace of `node`, which is in an executor.

        Raises:
            SetupError: the package is not installed; the driver is not there, does not answer or moves another arm.
        """
        manipulator_class, node_class = _load()
        self._owner = node
        # The process's own remappings are the arm node's name and topics.
        self._node: Node = node_class(
            f"{node.get_name()}_driver", namespace=node.get_namespace(), use_global_arguments=False
        )
        try:
            self._await_driver()
            core = self._build(manipulator_class, robot_model).core
        except BaseException:
            self._node.destroy_node()
            raise
        self.ends = DriverEnds(
            core.robot_write_commands,
            core.robot_write_joint_command,
            {name: getattr(core, attribute) for name, attribute in _CLIENTS.items()},
            sends_trajectories=True,
        )
        node.executor.add_node(self._node)

    def close(self) -> None:
        """Take leave of the graph."""
        self._owner.executor.remove_node(self._node)
        self._node.destroy_node()

    def _await_driver(self) -> None:
        """Wait for all that the constructor would wait for."""
        end_s = time.monotonic() + self.LIMIT_S
        while missing := self._missing():
            if time.monotonic() > end_s:
                raise SetupError(
                    f"no driver in {self._node.get_namespace()}: {', '.join(missing)} not there after "
                    f"{self.LIMIT_S:g} s; start xsarm_control with this robot_name first"
                )
            time.sleep(0.1)

    def _missing(self) -> list[str]:
        there = {name for name, _ in self._node.get_service_names_and_types()}
        missing = [name for name in SERVICES if self._node.resolve_service_name(name) not in there]
        if not self._node.count_publishers(self._node.resolve_topic_name("joint_states")):
            missing.append("joint_states")
        return missing

    def _build(self, manipulator_class: Any, robot_model: str) -> Any:
        """Build it; a timer that it spins itself ends a wait that lasts too long."""
        timer = self._node.create_timer(self.LIMIT_S, _give_up)
        try:
            return manipulator_class(
                robot_model,
                robot_name=self._node.get_namespace().strip("/"),
                gripper_name=None,
                node=self._node,
                iterative_update_fk=False,
            )
        except TimeoutError:
            raise SetupError(
                f"the driver sent no joint states or no answer within {self.LIMIT_S:g} s; does it hang?"
            ) from None
        except SystemExit:
            raise SetupError(
                f"{PACKAGE} ended (see above): the driver's arm is no {robot_model}; is it another robot_model?"
            ) from None
        finally:
            self._node.destroy_timer(timer)


def _load() -> tuple[Any, Any]:
    try:
        common = importlib.import_module("interbotix_common_modules.common_robot.robot")
        modules = importlib.import_module("interbotix_xs_modules.xs_robot.arm")
    except ModuleNotFoundError as error:
        raise SetupError(
            f"{PACKAGE} cannot be used: {error}. Build github.com/Interbotix/interbotix_ros_toolboxes and "
            "interbotix_ros_core (branch humble or jazzy) with their dependencies and source the workspace. With the "
            "latter alone set driver_package to interbotix_xs_msgs; for the fake driver, to lapa_xs_msgs"
        ) from error
    return modules.InterbotixManipulatorXS, common.InterbotixRobotNode


def _give_up() -> None:
    raise TimeoutError
