# SPDX-License-Identifier: Apache-2.0
"""Configuration of `lapa serve`, and where its token comes from. Imports no torch."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from lapa_core.errors import ContractError

TOKEN_VARIABLE = "LAPA_SERVE_TOKEN"
"""Environment variable with the token, on the server and on its clients; on a command line everybody could read it."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Answer openpi's clients, or a robot PC without a GPU, over a websocket (openpi's protocol: msgpack with arrays).

    A request is {"observation/image": a (H, W, 3) uint8 RGB array or the bytes of a JPEG or PNG file, "prompt": words};
    the answer holds "actions" (H, 7), H = 1 or the chunk of a continuous head: dx, dy, dz [m], a rotation vector [rad],
    gripper 0 closed to 1 open.
    `curl http://HOST:PORT/healthz` says OK. SIGTERM or Ctrl-C answers what is under way and ends.
    """

    checkpoint: Path | None = None
    """Folder of the policy; without one, the policy that ships with the package."""
    device: str = "cpu"
    """Torch device."""
    compile: bool = False
    """Compile a large model's decoding, for a GPU: minutes at the start, less time per action."""
    temperature: float | None = None
    """Of the sampling of bins; 0 takes the likeliest, none takes the checkpoint's own."""
    top_k: int = 0
    """Sample from so many of the likeliest bins only; 0 from all."""
    seed: int = 0
    """Of the sampling."""
    host: str = "127.0.0.1"
    """Address to serve on; the default cannot be reached from other machines. Another one needs a token."""
    port: int = 8000
    """Port to serve on, by default openpi's; 0 takes a free one."""
    token_file: Path | None = None
    """File with the token that clients must show (`Authorization: Api-Key TOKEN`, as openpi's client does). Without
    one, the environment variable LAPA_SERVE_TOKEN. The connection is not encrypted: tunnel it through ssh where the
    network is not yours."""
    max_clients: int = 16
    """Connections at a time; more are refused."""
    max_batch: int = 8
    """Requests of different clients that the model answers in one pass at most."""
    batch_wait_ms: float = 0.0
    """How long the first request of a pass waits for others [ms]; 0 takes those that are there."""
    max_message_mib: int = 16
    """Largest request [MiB]; a longer one is refused before it is read."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65535),
            ("max_clients", 1, 1024),
            ("max_batch", 1, 1024),
            ("batch_wait_ms", 0, 1000),
            ("max_message_mib", 1, 1024),
        ):
            if not low <= (value := getattr(self, name)) <= high:
                raise ContractError(f"{name} is {value}; allowed is {low} to {high}")

    def token(self) -> str:
        """Return the token, or "" on an address that only this machine can reach.

        Raises:
            ContractError: other machines can reach the address and there is no token, or its file is of no use.
        """
        token = read_token(self.token_file)
        if not token and not _is_loopback(self.host):
            raise ContractError(
                f"host is {self.host}, which other machines can reach, and there is no token; give --token-file or "
                f"set {TOKEN_VARIABLE}, or serve on 127.0.0.1"
            )
        return token


def read_token(file: Path | None) -> str:
    """Return the token of a file, else of the environment, else "".

    Raises:
        ContractError: the file cannot be read, or the token is empty or not printable ASCII in one line.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if file is not None:
        try:
            token = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ContractError(f"the token file {file} cannot be read: {error}") from error
        if not token:
            raise ContractError(f"the token file {file} is empty; write one line into it")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ContractError("the token must be printable ASCII without spaces")
    return token


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: nobody knows where it leads
