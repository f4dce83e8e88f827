# SPDX-License-Identifier: Apache-2.0
"""The websocket server: who may connect, one message at a time per client, and an end that drops nothing."""

from __future__ import annotations

import asyncio
import hmac
import http
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State

from lapa_core.errors import LapaError, ServerError
from lapa_core.serve.answer import Session

log = logging.getLogger(__name__)
_QUIET = logging.getLogger(f"{__name__}.websockets")
_QUIET.setLevel(logging.CRITICAL)  # it prints a traceback for everybody who only knocks

LEAVE_S = 10.0
"""How long answers that are under way may take after the signal to end [s]; then their connections are cut."""

MakeSession = Callable[[Callable[[], bool]], Session]


class PolicyServer:
    """Serves sessions on a socket until it is told to stop."""

    def __init__(
        self,
        make_session: MakeSession,
        hello: bytes,
        *,
        token: str,
        max_clients: int,
        max_message_bytes: int,
    ):
        """Take what a connection starts with; `hello` is sent to every client first."""
        self._make_session, self._hello = make_session, hello
        self._token, self._max_clients = token.encode(), max_clients
        self._max_message_bytes = max_message_bytes
        self._pool = ThreadPoolExecutor(max_clients, "client")
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Take no more requests; `run` returns when the answers under way are sent."""
        self._stop.set()

    async def run(self, taken: socket.socket) -> None:
        """Serve on a listening socket until `stop`."""
        server = await serve(
            self._serve_client, sock=taken, process_request=self._admit, compression=None, max_queue=2,
            max_size=self._max_message_bytes, origins=[None], server_header=None, logger=_QUIET,
        )  # fmt: skip
        await self._stop.wait()
        server.close(close_connections=False)
        _, late = await asyncio.wait({asyncio.ensure_future(server.wait_closed())}, timeout=LEAVE_S)
        if late:
            log.warning("cut after %g s: a client did not take its answer", LEAVE_S)
            for connection in list(server.connections):
                connection.transport.abort()
        self._pool.shutdown(wait=False)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer /healthz, and refuse who may not come in; the reason is the body."""
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        status, reason = None, ""
        if request.path != "/":
            status, reason = http.HTTPStatus.NOT_FOUND, "there are / (websocket) and /healthz"
        elif not self._knows_token(request.headers.get_all("Authorization")):
            status, reason = http.HTTPStatus.UNAUTHORIZED, "the token is missing or wrong"
        elif len(connection.server.connections) >= self._max_clients:
            status = http.HTTPStatus.SERVICE_UNAVAILABLE
            reason = f"all {self._max_clients} places are taken; try again later"
        if status is None:
            return None
        log.warning("%s refused: %s", connection.remote_address, reason)
        return connection.respond(status, f"{reason}\n")

    def _knows_token(self, shown: list[str]) -> bool:
        if not self._token:
            return True
        scheme, _, token = (shown[0] if len(shown) == 1 else "").partition(" ")
        same = hmac.compare_digest(token.encode("utf-8", "replace"), self._token)
        return same and scheme.lower() in ("api-key", "bearer")

    async def _serve_client(self, connection: ServerConnection) -> None:
        log.info("%s connected", connection.remote_address)
        try:
            await self._converse(connection)
        except ConnectionClosed as closed:
            # what the library refused by itself, such as a message that is too long, has its reason in `sent`
            reason = f": {closed.sent.reason}" if closed.sent and closed.sent.reason else ""
            log.info("%s left%s", connection.remote_address, reason)
        except Exception:
            # Broad on purpose: the library's log is silenced above, so a mistake of ours would close the connection
            # without a word to the client or to the log.
            log.exception("%s: the server failed", connection.remote_address)
            await connection.close(CloseCode.INTERNAL_ERROR, "the server failed; its log says why")

    async def _converse(self, connection: ServerConnection) -> None:
        session = self._make_session(lambda: connection.state is not State.OPEN)
        await connection.send(self._hello)
        loop = asyncio.get_running_loop()
        while (data := await self._next(connection)) is not None:
            try:
                answer = await loop.run_in_executor(self._pool, session.answer, data)
            except LapaError as error:
                code = (
                    CloseCode.INTERNAL_ERROR
                    if isinstance(error, ServerError)
                    else CloseCode.POLICY_VIOLATION
                )
                log.warning("%s refused: %s", connection.remote_address, error)
                await connection.send(str(error))
                await connection.close(code, "the reason is in the message before")
                return
            await connection.send(answer)
        await connection.close(CloseCode.GOING_AWAY, "the server ends")

    async def _next(self, connection: ServerConnection) -> bytes | str | None:
        """Return the next message, or None when the server shall end."""
        message = asyncio.ensure_future(connection.recv())
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({message, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not self._stop.is_set():
            return message.result()
        if not message.cancel():  # it came too late, or was the client's leave
            message.exception()
        return None
