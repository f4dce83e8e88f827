# SPDX-License-Identifier: Apache-2.0
"""The base of nodes that do one piece of work in a thread of their own, and whose process ends with it."""

from __future__ import annotations

import threading
import traceback
from abc import ABC, abstractmethod
from typing import Any

from lapa_core.errors import LapaError
from lapa_ros.lifecycle import ManagedNode
from lapa_ros.remote import GraphError


class WorkerNode(ManagedNode, ABC):
    """Activation begins `work`; deactivation and a signal ask it to end. The node ends with 0, with 1 where it failed.

    Attributes:
        stop_asked: set when the work shall end; what it waits for must look at it.
    """

    def __init__(self, name: str, **kwargs: Any):
        super().__init__(name, **kwargs)
        self.stop_asked = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def work(self) -> None:
        """Do it; called in a thread, while the executor goes on. A `LapaError` ends it with one line."""

    def start(self) -> None:
        """Begin.

        Raises:
            GraphError: work that was asked to end has not ended yet.
        """
        if not self.may_shut_down():
            raise GraphError("the work that was asked to end has not; activate again once it has")
        self.stop_asked.clear()
        self._thread = threading.Thread(target=self._run, name=self.get_name(), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the work to end; an arm that it drove then holds by its watchdog."""
        self.stop_asked.set()

    def before_shutdown(self) -> None:
        """Ask the work to end while answers to its calls still arrive."""
        self.stop_asked.set()

    def may_shut_down(self) -> bool:
        """Return whether the work has ended."""
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.work()
        except LapaError as error:
            self.get_logger().error(f"{self.get_name()} ended: {error}")
            self.end(1)
        except Exception:
            # Broad on purpose: nobody joins this thread. The node would go on without its work and end with 0.
            self.get_logger().error(f"{self.get_name()} ended:\n{traceback.format_exc()}")
            self.end(1)
        else:
            self.end(0)
