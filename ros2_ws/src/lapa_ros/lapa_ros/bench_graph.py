# SPDX-License-Identifier: Apache-2.0
"""Where a bench measures: a ROS domain of its own, a node of the bench in it, and the nodes under test as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from lapa_core.ros_env import free_domain_id

Rig = TypeVar("Rig", bound=Node)
END_S = 20.0
"""So long a process may take to end after its SIGINT; it is killed then [s]."""


@contextmanager
def spun(make_rig: Callable[[], Rig]) -> Iterator[Rig]:
    """Make a node in a ROS domain where nobody else is, and spin it in a thread."""
    os.environ["ROS_DOMAIN_ID"] = str(free_domain_id())
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init()
    rig, executor, stop = make_rig(), SingleThreadedExecutor(), threading.Event()
    executor.add_node(rig)

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield rig
    finally:
        stop.set()
        thread.join(5.0)
        executor.remove_node(rig)
        rig.destroy_node()
        rclpy.try_shutdown()


@contextmanager
def node_process(
    module: str, params: Mapping[str, str], end_s: float = END_S
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the node of a module with parameters, as text; interrupt it at the end, and kill it after `end_s` [s]."""
    given = [word for name, value in params.items() for word in ("-p", f"{name}:={value}")]
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--ros-args", *given],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)  # nothing, where it has ended
        try:
            process.wait(end_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
