# SPDX-License-Identifier: Apache-2.0
"""What the pages that run on a person's own machine share (`lapa laq play`, `lapa data review`)."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvicorn
from numpy.typing import NDArray
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lapa_core.errors import ActionError, LapaError

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""Names under which a page answers, beside the one that it was told to serve on: other sites cannot borrow it."""


class _SameOrigin:
    """Refuses what another site's page sends here behind the user's back."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] != "GET":
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                refusal = JSONResponse({"error": f"requests from {origin} are refused"}, 403)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def application(routes: Sequence[Route], host: str) -> Starlette:
    """Return an application for one host, in which a `LapaError` is an answer with status 400."""
    names = ["*"] if host in ("0.0.0.0", "::") else [*LOCAL_HOSTS, host]
    return Starlette(
        routes=list(routes),
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=names),
            Middleware(_SameOrigin),
        ],
        exception_handlers={LapaError: _refusal},
    )


def _refusal(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


def object_in(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request; an empty body is an empty one.

    Raises:
        ActionError: it is something else.
    """
    try:
        asked = json.loads(body or b"{}")
    except ValueError as error:
        raise ActionError(f"the request is no JSON ({error}); send an object") from error
    if not isinstance(asked, dict):
        raise ActionError(f"the request is {type(asked).__name__}; send a JSON object")
    return asked


def png(picture_HWC: NDArray[np.uint8]) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def serve(application: Starlette, taken: socket.socket) -> None:
    """Answer until Ctrl-C."""
    server = uvicorn.Server(
        uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=2)
    )
    try:
        server.run(sockets=[taken])
    except KeyboardInterrupt:
        return
    finally:
        taken.close()
