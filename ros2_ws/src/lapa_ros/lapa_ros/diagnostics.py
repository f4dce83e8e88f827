# SPDX-License-Identifier: Apache-2.0
"""One `/diagnostics` entry per node, once a second (REP 107)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from lapa_ros import qos

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Health(NamedTuple):
    """How a node is at this moment."""

    level: bytes
    """OK, WARN or ERROR of this module."""
    message: str
    """One sentence for people."""
    values: dict[str, Any]
    """Figures behind the sentence; shown as text."""


def status_message(name: str, hardware_id: str, health: Health) -> DiagnosticStatus:
    """Return what ROS shows of it."""
    return DiagnosticStatus(
        level=health.level,
        name=name.lstrip("/"),
        message=health.message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in health.values.items()],
    )


class Diagnostics:
    """Publishes what `report` says, once a second, until its node destroys the topic and the timer."""

    def __init__(self, node: Node, hardware_id: str, report: Callable[[], Health]):
        self._node, self._hardware_id, self._report = node, hardware_id, report
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        node.create_timer(1.0, self._publish)

    def _publish(self) -> None:
        name = self._node.get_fully_qualified_name()
        message = DiagnosticArray(status=[status_message(name, self._hardware_id, self._report())])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)
