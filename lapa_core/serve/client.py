# SPDX-License-Identifier: Apache-2.0
"""A policy whose model runs in a `lapa serve` elsewhere: no torch, no GPU, and never an answer to another question.

The frame is cropped and resized here and the gripper's hysteresis is kept here, so that `Policy.act` does the same as
with a model of its own. An answer that is late, or that answers something else, is thrown away together
with its connection; the next call connects anew.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import ContractError, DataError, ServerError, SetupError
from lapa_core.policy import NEEDED_FACTS, SERVER_SCHEMES, Decision, Policy
from lapa_core.serve.config import TOKEN_VARIABLE, read_token
from lapa_core.serve.schema import DECISION, IMAGE, PROMPT, REQUEST, Inputs
from lapa_core.serve.wire import pack, unpack
from lapa_core.vla.history import HISTORY

try:
    from websockets.exceptions import (
        ConnectionClosed,
        InvalidHandshake,
        InvalidStatus,
        WebSocketException,
    )
    from websockets.protocol import State
    from websockets.sync.client import ClientConnection, connect
except ImportError as error:
    raise SetupError(
        f"a policy server needs websockets 13 or later ({error}); pip install 'websockets>=13'"
    ) from error

DEFAULT_TIMEOUT_S = 1.0
DEFAULT_PORT = 8000

_ARRAYS = {
    "action_7": (np.dtype(np.float64), 1),
    "bins_7": (np.dtype(np.int64), 1),
    "chunk_H7": (np.dtype(np.float64), 2),
}
"""Type and number of axes of the arrays of a `Decision`; the last axis has seven entries."""


class RemoteEngine:
    """The `Engine` of a policy in another process. Not thread-safe.

    Attributes:
        config: of the policy that is served; that of its checkpoint.
    """

    def __init__(self, address: str, *, token: str = "", timeout_s: float = DEFAULT_TIMEOUT_S):
        """Connect.

        Raises:
            ContractError: no address of a server, or a time limit that is not positive.
            ServerError: there is no server, or it refuses.
        """
        self._address, self._parts = address, _split(address)
        if not 0.0 < timeout_s < float("inf"):
            raise ContractError(f"timeout_s is {timeout_s}; it must be positive seconds")
        self._timeout_s = timeout_s
        self._headers = {"Authorization": f"Api-Key {token}"} if token else None
        self._connection: ClientConnection | None = None
        self._number = 0
        self.config: dict[str, Any] = self._connect(time.monotonic() + timeout_s)

    def step(self, frame_SS3: NDArray[np.uint8], instruction: str) -> Decision:
        """Return the server's decision on one preprocessed square frame; see `step_with`."""
        return self.step_with(frame_SS3, instruction, {})

    def step_with(
        self, frame_SS3: NDArray[np.uint8], instruction: str, extra: Mapping[str, NDArray[Any]]
    ) -> Decision:
        """Return the server's decision on one preprocessed square frame and what there is beside it.

        Raises:
            DataError: the policy takes no such thing beside a frame.
            ServerError: there is no server, no answer in time, another policy than before, or a refusal.
        """
        beside = Inputs.of(self.config).write(extra)
        until_s = time.monotonic() + self._timeout_s
        if self._connection is not None and self._connection.state is not State.OPEN:
            self.close()  # the server ended it since the last call
        if self._connection is None and self._connect(until_s) != self.config:
            self.close()
            raise ServerError(
                f"{self._address} now serves another policy; start this side anew to use it"
            )
        self._number += 1
        request = {IMAGE: frame_SS3, PROMPT: instruction, REQUEST: self._number}
        reply = self._exchange(pack({**request, **beside}), until_s)
        if reply.get(REQUEST) != self._number:
            self.close()
            raise ServerError(f"{self._address} answered something else than it was asked")
        return self._decision(reply)

    def reset(self) -> None:
        """Let the server forget the codes of earlier frames, which it remembers per connection."""
        if self.config.get(HISTORY):
            self.close()

    def close(self) -> None:
        """Drop the connection; the next `step` makes another."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _exchange(self, request: bytes, until_s: float) -> dict[str, Any]:
        """Send a request, if any, and return the next message; the connection does not outlive a failure."""
        connection = self._connection
        assert connection is not None, "step connects first"
        try:
            if request:
                connection.send(request)
            message = connection.recv(timeout=max(0.0, until_s - time.monotonic()))
            if isinstance(message, bytes):
                return unpack(message)
            failure = f"{self._address} refuses: {message.strip()[:500]}"
        except DataError as error:
            failure = f"{self._address} sends what is not understood here: {error}"
        except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
            failure = self._failure(error)
        self.close()
        raise ServerError(failure)

    def _connect(self, until_s: float) -> dict[str, Any]:
        """Open a connection and return the config of the policy behind it."""
        try:
            self._connection = connect(
                self._address, sock=self._socket(until_s), additional_headers=self._headers, compression=None,
                proxy=None, max_size=16 << 20, close_timeout=0.2,
                open_timeout=max(0.01, until_s - time.monotonic()),
            )  # fmt: skip
        except (OSError, WebSocketException) as error:
            raise ServerError(self._failure(error)) from error
        hello = self._exchange(b"", until_s)
        if hello.get("server") != "lapa" or not isinstance(hello.get("policy"), dict):
            self.close()
            raise ServerError(f"{self._address} is no `lapa serve`")
        if missing := NEEDED_FACTS - set(hello["policy"]):
            self.close()
            raise ServerError(
                f"{self._address} serves a policy whose config lacks {sorted(missing)}; is it of another version?"
            )
        return hello["policy"]

    def _socket(self, until_s: float) -> socket.socket:
        """Return a connected socket on which no send blocks for longer than the time limit."""
        left_s = max(0.01, until_s - time.monotonic())
        address = (self._parts.hostname or "", self._parts.port or DEFAULT_PORT)
        made = socket.create_connection(address, left_s)
        limit = struct.pack("ll", int(self._timeout_s), int(self._timeout_s % 1 * 1e6))
        made.settimeout(None)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return made

    def _failure(self, error: Exception) -> str:
        if isinstance(error, (TimeoutError, BlockingIOError)):
            return f"{self._address} did not answer within {self._timeout_s:g} s"
        if isinstance(error, InvalidStatus):
            reason = (error.response.body or b"").decode("utf-8", "replace").strip()[:200]
            return f"{self._address} refuses the connection: {reason or error} (a token is given by {TOKEN_VARIABLE})"
        if isinstance(error, InvalidHandshake):
            return f"{self._address} does not speak websocket: {error}"
        if isinstance(error, ConnectionClosed):
            return f"{self._address} ended the connection: {error}"
        return f"no policy server at {self._address}: {error or type(error).__name__}"

    def _decision(self, reply: dict[str, Any]) -> Decision:
        fields = reply.get(DECISION)
        if not isinstance(fields, dict) or not _fits(fields):
            self.close()
            raise ServerError(
                f"{self._address} sends no decision as it should; is it of another version?"
            )
        latent = None if fields["latent"] is None else tuple(fields["latent"])
        return Decision(**{**fields, "latent": latent})


def _fits(fields: dict[str, Any]) -> bool:
    """Return whether these are the fields of a `Decision`; their values are checked where they become a delta."""
    if set(fields) != set(Decision._fields):
        return False
    latent = fields["latent"]
    arrays_fit = all(
        isinstance(array := fields[name], np.ndarray)
        and (array.dtype, array.ndim, array.shape[-1]) == (kind, dimensions, 7)
        and len(array) > 0
        for name, (kind, dimensions) in _ARRAYS.items()
    )
    codes_fit = latent is None or (
        isinstance(latent, list) and all(type(code) is int for code in latent)
    )
    return arrays_fit and codes_fit


def connect_policy(
    address: str, *, token: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Policy:
    """Return the policy that a `lapa serve` at ws://host:port serves.

    Args:
        address: `ws://host:port`, or `wss://host:port` behind a TLS proxy; without a port 8000.
        token: what the server asks for; None takes the environment variable LAPA_SERVE_TOKEN.
        timeout_s: longest time that one `act` waits for the answer, connecting included [s].

    Raises:
        ContractError: no such address, token or time limit.
        ServerError: there is no server, or it refuses.
    """
    engine = RemoteEngine(
        address, token=read_token(None) if token is None else token, timeout_s=timeout_s
    )
    return Policy(engine, engine.config)


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        usable = address.startswith(SERVER_SCHEMES) and parts.hostname and parts.path in ("", "/")
        _ = parts.port  # checked on access
    except ValueError:
        usable = False
    if not usable:
        raise ContractError(
            f"{address!r} is no address of a policy server; give ws://host:port as `lapa serve` prints it"
        )
    return parts
