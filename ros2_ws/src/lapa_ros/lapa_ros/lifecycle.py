# SPDX-License-Identifier: Apache-2.0
"""The base of all nodes: four hooks, honest transitions, start by itself, clean end.

rclpy swallows exceptions in transition callbacks; here each is logged with its traceback and fails the
transition. `ros2 launch` and `lapa up` start nodes the same way: the parameter `autostart` makes a node configure
and activate itself.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from lapa_core.errors import LapaError
from lapa_core.launcher import LauncherWatch
from lapa_ros import params as params_module
from lapa_ros.diagnostics import OK, WARN, Diagnostics, Health
from lapa_ros.namesakes import Namesakes


class ManagedNode(LifecycleNode):
    """A lifecycle node with parameters and diagnostics; subclasses fill the hooks below.

    Attributes:
        params: the node's parameters, a frozen dataclass of `lapa_ros.params`.
        finished: set when the node wants its process to end; `exit_code` says how.
        interrupted: set when its process was asked to end; who waits long in `setup` looks at it.
    """

    def __init__(self, name: str, **kwargs: Any):
        super().__init__(name, **kwargs)
        self.params: Any = params_module.declare(self, params_module.PARAMETERS[name])
        self.add_on_set_parameters_callback(self._keep_clock)
        self.finished = threading.Event()
        self.interrupted = threading.Event()
        self.exit_code = 0
        self.active = False
        self._own: list[Any] | None = None  # what it has in the graph when it is not configured
        self._namesakes = Namesakes(
            self.get_fully_qualified_name(), self.context.get_domain_id(), self.say
        )

    def setup(self) -> None:
        """Configure: load, check, create entities. Raise to fail; `teardown` is called then."""

    def start(self) -> None:
        """Activate: begin to act."""

    def stop(self) -> None:
        """Deactivate: end the loop first, then send the safe action."""

    def teardown(self) -> None:
        """Clean up or shut down: give back what `setup` made, but for topics, services, actions and timers that nobody
        keeps: they are destroyed after it. Must bear a partial set-up.
        """

    def before_shutdown(self) -> None:
        """Start what has to be finished before the process ends, such as parking."""

    def may_shut_down(self) -> bool:
        """Return whether it is finished; the node spins until then, for at most `shutdown_limit_s`."""
        return True

    def shutdown_limit_s(self) -> float:
        """Return the longest time that it may take [s]; asked after `before_shutdown`."""
        return 10.0

    def unfinished(self) -> str:
        """Say what was not finished before the process ends, and what that means; "" when all was."""
        return "" if self.may_shut_down() else "the node ends before it has finished"

    def health(self) -> Health:
        """Return what the diagnostics say."""
        return Health(OK, "active" if self.active else "inactive", {})

    def now_s(self) -> float:
        """Return the node clock [s]."""
        return self.get_clock().now().nanoseconds * 1e-9

    def say(self, level: str, text: str) -> None:
        """Log at "info", "warn" or "error"; rclpy wants each level on a line of its own."""
        logger = self.get_logger()
        if level == "error":
            logger.error(text)
        elif level == "warn":
            logger.warning(text)
        else:
            logger.info(text)

    def end(self, exit_code: int) -> None:
        """Ask the process to end."""
        self.exit_code = exit_code
        self.finished.set()

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Run `setup`, and `teardown` when it fails."""
        self._own = [entity for entities, _ in self._in_graph() for entity in entities]
        result = self._guard("configure", self.setup)
        if result is not TransitionCallbackReturn.SUCCESS:
            self._guard("clean up after configure", self._tear_down)
            return result
        Diagnostics(self, self.params.contract, self._whole_health)
        return super().on_configure(state)

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Enable the publishers, then run `start`."""
        super().on_activate(state)
        result = self._guard("activate", self.start)
        self.active = result is TransitionCallbackReturn.SUCCESS
        if not self.active:
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Run `stop` while the publishers still work, then disable them."""
        self.active = False
        result = self._guard("deactivate", self.stop)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Run `teardown`, unless something is under way that uses what it gives back."""
        if not self.may_shut_down():
            self.get_logger().error(
                "cannot clean up: what was under way has not ended; try again once it has"
            )
            return TransitionCallbackReturn.FAILURE
        return self._guard("clean up", self._tear_down)

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Run `stop` when active, then `teardown`."""
        result = TransitionCallbackReturn.SUCCESS
        if self.active:
            result = self.on_deactivate(state)
        torn_down = self._guard("shut down", self._tear_down)
        return result if result is not TransitionCallbackReturn.SUCCESS else torn_down

    def _keep_clock(self, parameters: list[Parameter]) -> SetParametersResult:
        """Refuse another clock: what was set up, a real arm's watchdog above all, was checked with this one."""
        simulated = self.get_parameter("use_sim_time").value
        if any(p.name == "use_sim_time" and p.value != simulated for p in parameters):
            reason = "use_sim_time is read when the node starts; start it anew with the other value"
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _in_graph(self) -> Iterator[tuple[list[Any], Callable[[Any], object]]]:
        """Yield what the node has in the graph, kind by kind, and how one of them is destroyed."""
        yield list(self.timers), self.destroy_timer
        yield list(self.subscriptions), self.destroy_subscription
        yield list(self.services), self.destroy_service
        yield list(self.clients), self.destroy_client
        yield list(self.publishers), self.destroy_lifecycle_publisher  # takes the others too
        # Events are among them, but those of destroyed subscriptions and publishers have gone with these.
        yield list(self.waitables), lambda action: action.destroy()

    def _tear_down(self) -> None:
        """Run `teardown`, then destroy what the configuration made: the next one would make it again."""
        try:
            self.teardown()
        finally:
            self._destroy_configured()

    def _destroy_configured(self) -> None:
        own = self._own
        if own is None:  # never configured
            return
        for entities, destroy in self._in_graph():
            for entity in [entity for entity in entities if entity not in own]:
                destroy(entity)

    def _whole_health(self) -> Health:
        """Return the subclass's health, which a namesake in the domain makes worth a warning at least."""
        health = self.health()
        if not (problem := self._namesakes.look(self.get_node_names_and_namespaces())):
            return health
        message = f"{problem}; {health.message}"
        return health._replace(level=max(health.level, WARN), message=message)

    def _guard(self, what: str, hook: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            hook()
        except LapaError as error:  # the user's to mend: the message is enough
            self.get_logger().error(f"cannot {what}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            # Broad on purpose: rclpy takes whatever a transition raises and drops it without a word.
            self.get_logger().error(f"cannot {what}:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS


def run(make_node: Callable[[], ManagedNode], argv: list[str] | None = None) -> int:
    """Run one node until a signal, until it wants to end, or until it cannot start; return the exit code.

    SIGINT, SIGTERM, SIGHUP and the end of the process that launched it shut the node down through its lifecycle, so
    that an arm holds and files are closed.
    """
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    interrupted = threading.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` leaves it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, lambda *_: interrupted.set())
    executor = SingleThreadedExecutor()
    try:
        launcher = LauncherWatch.from_environment(os.environ)
        node = make_node()
        node.interrupted = interrupted
    except (LapaError, ParameterException, NameValidationException) as error:
        # The user's to mend: a parameter out of bounds, above all. One line instead of a traceback.
        rclpy.logging.get_logger("lapa").error(f"cannot start: {type(error).__name__}: {error}")
        rclpy.try_shutdown()
        return 2
    executor.add_node(node)
    try:
        if node.params.autostart and not _autostart(node):
            return 1
        while not (interrupted.is_set() or node.finished.is_set() or _is_orphan(node, launcher)):
            executor.spin_once(timeout_sec=0.1)
        _wind_down(node, executor)
    except ExternalShutdownException:
        pass
    finally:
        node.trigger_shutdown()
        executor.remove_node(node)
        node.destroy_node()
        rclpy.try_shutdown()
        for number in numbers:
            # Python's own end would put back the handlers that kill; what is ignored stays ignored.
            signal.signal(number, signal.SIG_IGN)
    return node.exit_code


def _is_orphan(node: ManagedNode, watch: LauncherWatch) -> bool:
    """Return whether the process that launched the node is gone, and say so: nobody may be left who could end it."""
    if not watch.is_gone():
        return False
    assert watch.launcher is not None
    node.say("warn", f"process {watch.launcher.pid}, which started this node, is gone: ending")
    return True


def _wind_down(node: ManagedNode, executor: SingleThreadedExecutor) -> None:
    """Spin until the node may shut down. Further signals are ignored: an arm that parks is not to be interrupted."""
    if not node.active:
        return
    node.before_shutdown()
    limit_s = node.shutdown_limit_s()
    end_s = time.monotonic() + limit_s
    while not node.may_shut_down() and time.monotonic() < end_s:
        executor.spin_once(timeout_sec=0.05)
    if unfinished := node.unfinished():
        waited = "" if node.may_shut_down() else f"cut short after {limit_s:.1f} s: "
        node.get_logger().error(f"{waited}{unfinished}")


def _autostart(node: ManagedNode) -> bool:
    success = TransitionCallbackReturn.SUCCESS
    return node.trigger_configure() is success and node.trigger_activate() is success
