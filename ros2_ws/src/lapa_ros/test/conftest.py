# SPDX-License-Identifier: Apache-2.0
"""What the tests share: contracts, a clock that stands still, and real rclpy in a domain of its own."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter

from lapa_core.robot.contract import RobotContract, load_contract
from lapa_core.ros_env import free_domain_id

sys.path.insert(0, str(Path(__file__).parent))


EXIT_S = 60.0
"""Longest time that this process may take to end after the last test [s]."""


def pytest_unconfigure() -> None:
    """Show what keeps this process from ending, and end it with an error."""
    faulthandler.dump_traceback_later(EXIT_S, exit=True)


class Clock:
    """A clock that moves when told."""

    def __init__(self, now_s: float = 1000.0):
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def contract() -> RobotContract:
    return load_contract("wx250s_sim")


@pytest.fixture(scope="session")
def ros_domain() -> Iterator[int]:
    """Start rclpy where nobody else is; children of the tests find the domain in the environment."""
    domain = int(os.environ.get("ROS_DOMAIN_ID") or free_domain_id())
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(domain_id=domain)
    yield domain
    rclpy.try_shutdown()


class Spinner:
    """Nodes that are spun by one background thread, and waits with a limit for the test's own thread."""

    def __init__(self) -> None:
        self._executor = SingleThreadedExecutor()
        self._nodes: list[Node] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def add(self, node: Node) -> Node:
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def hang(self, node: Node) -> None:
        """Spin a node no more: it stands still, as a process that was stopped."""
        self._executor.remove_node(node)
        for _ in range(2):  # the round under way may still serve it
            self.wait(self._executor.create_task(lambda: None).done, "the next round")

    def resume(self, node: Node) -> None:
        """Spin it again."""
        self._executor.add_node(node)

    def start(self, kind: type[Node], **parameters: object) -> Any:
        """Return a lifecycle node that is configured, active and spun."""
        overrides = [Parameter(key, value=value) for key, value in parameters.items()]
        node = kind(parameter_overrides=overrides)
        assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
        return self.add(node)

    def wait(self, condition: Callable[[], object], what: str, limit_s: float = 30.0) -> None:
        end_s = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end_s, f"waited {limit_s} s for {what}"
            time.sleep(0.01)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5.0)
        self._executor.shutdown(timeout_sec=2.0)
        for node in self._nodes:
            if hasattr(node, "trigger_shutdown"):
                node.trigger_shutdown()
            node.destroy_node()

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)


@pytest.fixture
def spinner(ros_domain: int) -> Iterator[Spinner]:
    spinner = Spinner()
    yield spinner
    spinner.close()
