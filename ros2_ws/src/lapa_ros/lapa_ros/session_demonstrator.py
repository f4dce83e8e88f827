# SPDX-License-Identifier: Apache-2.0
"""The scripted operator of a whole recording session: does what `session_state` asks for, as a person would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lapa_msgs.msg import SessionState
from rclpy.node import Node
from std_srvs.srv import Trigger

from lapa_ros import qos
from lapa_ros.clock import to_seconds
from lapa_ros.demonstrator import Demonstrator
from lapa_ros.remote import GraphError, call, wait_until
from lapa_ros.scene import SceneControl

VERB_LIMIT_S = 30.0
"""Longest time that a verb may take: the recording is closed and judged [s]."""
PATIENCE_S = 60.0
"""So long a recorder or session node that was killed may take to be back [s]."""
FIRST_S = 20.0
"""So long a session node may take to say something for the first time; one with a bad session file never does [s]."""


class SessionClient:
    """The session node as an operator meets it.

    Attributes:
        state: what it said last; None before that.
    """

    def __init__(self, node: Node):
        """Make the clients and the subscription on a node that somebody spins."""
        self.state: SessionState | None = None
        self._clock, self._asked_s = node.get_clock(), float("-inf")
        self._verbs = {
            verb: node.create_client(Trigger, f"session/{verb}")
            for verb in ("record", "save", "discard")
        }
        node.create_subscription(SessionState, "session_state", self._on_state, qos.STATE)

    def __call__(self, verb: str) -> str:
        """Do a verb; return the node's sentence.

        Raises:
            GraphError: it refused or did not answer.
        """
        self._asked_s = self._clock.now().nanoseconds * 1e-9
        return str(call(self._verbs[verb], Trigger.Request(), VERB_LIMIT_S).message)

    def wait_first(self, stop: threading.Event) -> None:
        """Return once the session node has said something.

        Raises:
            GraphError: it has not, or `stop` was set.
        """
        what = "the session node, which says in its own log why it is not there"
        wait_until(lambda: self.state is not None, what, FIRST_S, stop)

    def wait_at_rest(self, stop: threading.Event) -> SessionState:
        """Return the state once nothing is being opened, closed or judged.

        Raises:
            GraphError: that took too long, or `stop` was set.
        """
        wait_until(self._at_rest, "the session node", PATIENCE_S, stop)
        assert self.state is not None
        return self.state

    def _at_rest(self) -> bool:
        """Return whether a state from after the last verb says that nothing is under way."""
        state = self.state
        if state is None or state.phase == SessionState.PHASE_BUSY:
            return False
        return to_seconds(state.header.stamp) > self._asked_s

    def _on_state(self, state: SessionState) -> None:
        self.state = state


class SessionDemonstrator:
    """Lays out, records, acts and saves until the session is done; what a crash of a node spoils is done again.

    Attributes:
        num_done, num_failed: episodes that were demonstrated, and spoilt ones.
    """

    MAX_SPOILT = 10
    """So many episodes spoilt in a row end the session."""
    RETRY_S = 1.0

    def __init__(
        self, session: SessionClient, scene: SceneControl, demonstrator: Demonstrator,
        log: Callable[[str], None],
    ):  # fmt: skip
        self._session, self._scene = session, scene
        self._demonstrator, self._log = demonstrator, log
        self.num_done = self.num_failed = 0

    def run(self, stop: threading.Event) -> None:
        """Work through the session.

        Raises:
            GraphError: there is no session, `MAX_SPOILT` episodes in a row were spoilt, or `stop` was set.
        """
        self._session.wait_first(stop)
        spoilt = 0
        while True:
            try:
                state = self._session.wait_at_rest(stop)
                if state.phase == SessionState.PHASE_DONE:
                    return
                self._episode(state, stop)
                spoilt = 0
            except GraphError as error:
                spoilt += 1
                self.num_failed += 1
                if stop.is_set() or spoilt == self.MAX_SPOILT:
                    raise
                self._log(f"once more: {error}")
                time.sleep(self.RETRY_S)

    def _episode(self, state: SessionState, stop: threading.Event) -> None:
        if state.phase == SessionState.PHASE_RECORDING:  # of a life before
            self._log(self._session("discard"))
        start = self._scene.reset(state.seed, state.instruction, stop)
        self._session("record")
        try:
            steps = self._demonstrator.act(start.episode, stop)
        except GraphError:
            self._session("discard")
            raise
        if steps is None:
            raise GraphError(self._session("discard"))
        self._log(self._session("save"))
        self.num_done += 1
