# SPDX-License-Identifier: Apache-2.0
"""Interbotix's own Python API, `InterbotixManipulatorXS`, as the arm node's way to the driver."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode

from lapa_core.errors import SetupError
from lapa_ros.interbotix_link import DriverEnds

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
    sleep (facts of the robot, 1.3). So it is built while the arm node is configured, before anything is spun, with
    each of its waits cut short; and only that of it is used which returns at once: what publishes commands, and its
    clients' asynchronous calls. It has no gripper interface: that one is for a gripper that is driven by effort.

    Attributes:
        ends: for a `RosDriverLink`.
    """

    LIMIT_S = 10.0
    """How long the driver may take to appear and to answer [s]."""

    def __init__(self, node: LifecycleNode, robot_model: str, interrupted: Callable[[], bool]):
        """Build it in the namespace of `node`, which is in an executor.

        Raises:
            SetupError: the package cannot be used; the driver is not there, does not answer, speaks other messages or
                moves another arm; or the process was interrupted meanwhile.
        """
        manipulator_class, node_class = _load()
        self._executor = node.executor
        if self._executor is None:
            raise SetupError(
                "the arm node is in no executor, which would spin its driver's node too"
            )
        end_s = time.monotonic() + self.LIMIT_S

        def look(waits_for: str) -> None:
            if interrupted():
                raise SetupError(f"interrupted while it waited for the driver's {waits_for}")
            if time.monotonic() > end_s:
                raise SetupError(
                    f"the driver's {waits_for} was waited for {self.LIMIT_S:g} s in vain. Start xsarm_control with "
                    "this robot_name first; where it runs, it hangs, or speaks other messages: see driver_package"
                )

        # The process's own remappings are the arm node's name and topics.
        self._node = _impatient(node_class, look)(
            f"{node.get_name()}_driver", namespace=node.get_namespace(), use_global_arguments=False
        )
        try:
            core = self._build(manipulator_class, robot_model, look).core
            self.ends = DriverEnds(
                core.robot_write_commands,
                core.robot_write_joint_command,
                {name: getattr(core, attribute) for name, attribute in _CLIENTS.items()},
                sends_trajectories=True,
            )
            self._executor.add_node(self._node)
        except BaseException:  # also of an interpreter that ends: it must not stay in the graph
            self._node.destroy_node()
            raise

    def close(self) -> None:
        """Take leave of the graph."""
        self._executor.remove_node(self._node)
        self._node.destroy_node()

    def _build(self, manipulator_class: Any, robot_model: str, look: Callable[[str], None]) -> Any:
        """Build it; a timer, which it spins itself, ends a wait for joint states or for an answer."""
        timer = self._node.create_timer(0.1, lambda: look("joint states or answer"))
        try:
            return manipulator_class(
                robot_model,
                robot_name=self._node.get_namespace().strip("/"),
                gripper_name=None,
                node=self._node,
                iterative_update_fk=False,
            )
        except SystemExit:
            raise SetupError(
                f"{PACKAGE} ended (see above): the driver's arm is no {robot_model}; is it another robot_model?"
            ) from None
        finally:
            self._node.destroy_timer(timer)


def _impatient(node_class: Any, look: Callable[[str], None]) -> Any:
    """Return a node class whose clients ask `look` while they wait for their service."""

    class ImpatientNode(node_class):
        def create_client(self, *args: Any, **kwargs: Any) -> Any:
            client = super().create_client(*args, **kwargs)

            def wait_for_service(timeout_sec: float | None = None) -> bool:
                while not client.service_is_ready():
                    look(f"service {client.srv_name}")
                    time.sleep(0.05)
                return True

            client.wait_for_service = wait_for_service
            return client

    return ImpatientNode


def _load() -> tuple[Any, Any]:
    try:
        common = importlib.import_module("interbotix_common_modules.common_robot.robot")
        modules = importlib.import_module("interbotix_xs_modules.xs_robot.arm")
    except Exception as error:
        # Broad on purpose: what it imports in turn fails in its own ways, as an old transforms3d beside NumPy 2 does.
        raise SetupError(
            f"{PACKAGE} cannot be used: {type(error).__name__}: {error}. Build github.com/Interbotix/"
            "interbotix_ros_toolboxes and interbotix_ros_core (branch humble or jazzy) with their dependencies and "
            "source the workspace. With the latter alone set driver_package to interbotix_xs_msgs; for the fake "
            "driver, to lapa_xs_msgs"
        ) from error
    return modules.InterbotixManipulatorXS, common.InterbotixRobotNode
