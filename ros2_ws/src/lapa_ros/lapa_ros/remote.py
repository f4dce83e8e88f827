# SPDX-License-Identifier: Apache-2.0
"""Services and actions of other nodes, called from a worker thread while an executor spins elsewhere.

Never call these from a callback: they wait. Every wait has a limit and a named failure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

from lapa_core.errors import LapaError


class GraphError(LapaError, RuntimeError):
    """Another node is missing, did not answer in time, or refused."""


def wait_future(future: Future, what: str, timeout_s: float) -> Any:
    """Return the result of a future.

    Raises:
        GraphError: it took longer than `timeout_s`, or failed.
    """
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    if not done.wait(timeout_s):
        future.cancel()
        raise GraphError(f"{what} did not answer within {timeout_s:g} s; is its node alive?")
    if future.exception() is not None:
        raise GraphError(f"{what} failed: {future.exception()}")
    return future.result()


def in_thread(node: Node, work: Callable[[], Any]) -> Future:
    """Do what waits in a thread of its own; return a future that a coroutine callback of `node` awaits."""
    future = Future(executor=node.executor)

    def do() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # handed to whoever awaits
            future.set_exception(error)

    threading.Thread(target=do, name="work", daemon=True).start()
    return future


def call(client: Client, request: Any, timeout_s: float = 5.0) -> Any:
    """Call a service and return its response.

    Raises:
        GraphError: there is no such service, no answer in time, or the answer says that it did not work.
    """
    name = client.srv_name
    if not client.wait_for_service(timeout_sec=timeout_s):
        raise GraphError(
            f"service {name} did not appear within {timeout_s:g} s; is its node running and active?"
        )
    response = wait_future(client.call_async(request), f"service {name}", timeout_s)
    ok = response.ok if hasattr(response, "ok") else response.success
    if not ok:
        raise GraphError(f"service {name} refused: {response.message}")
    return response


def wait_until(
    condition: Callable[[], bool], what: str, timeout_s: float, stop: threading.Event
) -> None:
    """Wait, polling at 100 Hz, until a condition holds.

    Raises:
        GraphError: it did not hold within `timeout_s`, or `stop` was set meanwhile.
    """
    waited_s = 0.0
    while not condition():
        if stop.wait(0.01):
            raise GraphError(f"stopped while waiting for {what}")
        waited_s += 0.01
        if waited_s > timeout_s:
            raise GraphError(f"waited {timeout_s:g} s for {what}")
