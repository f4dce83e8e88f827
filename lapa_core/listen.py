# SPDX-License-Identifier: Apache-2.0
"""The socket that a server of ours listens on, taken before anything is promised."""

from __future__ import annotations

import socket

from lapa_core.errors import SetupError


def listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is promised.

    Raises:
        SetupError: the port is in use, or the address is not this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        taken = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SetupError(
            f"host {host!r} cannot be served on: {error}; give --host 127.0.0.1"
        ) from error
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(address)
        taken.listen()
    except OSError as error:
        taken.close()
        raise SetupError(
            f"{host}:{port} cannot be served on: {error.strerror}; give another --port, or 0 for a free one"
        ) from error
    return taken


def place(host: str, taken: socket.socket) -> str:
    """Return host:port of a listening socket as an address holds them; IPv6 in brackets."""
    return f"{f'[{host}]' if ':' in host else host}:{taken.getsockname()[1]}"
