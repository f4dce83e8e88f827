# SPDX-License-Identifier: Apache-2.0
"""`lapa serve`: load the policy, take the port, serve until a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket

from lapa_core.listen import listen, place
from lapa_core.policy import Policy, refuse_plans
from lapa_core.serve.answer import Session
from lapa_core.serve.batch import Batcher
from lapa_core.serve.config import ServeConfig
from lapa_core.serve.schema import describe
from lapa_core.serve.server import PolicyServer
from lapa_core.serve.wire import pack


async def serve_policy(policy: Policy, config: ServeConfig, taken: socket.socket) -> None:
    """Serve on a listening socket until SIGINT or SIGTERM; a second signal ends at once.

    Raises:
        ContractError: the address needs a token and there is none.
    """
    batcher = Batcher(policy.engine, max_batch=config.max_batch, wait_s=config.batch_wait_ms * 1e-3)
    server = PolicyServer(
        lambda gone: Session(batcher, policy.config, gone), pack(describe(policy.config)), token=config.token(),
        max_clients=config.max_clients, max_message_bytes=config.max_message_mib << 20,
    )  # fmt: skip
    loop = asyncio.get_running_loop()

    def leave() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)  # a second one kills, whatever the model does
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave)
    await server.run(taken)
    batcher.close()


def main(config: ServeConfig) -> None:
    """Serve, and say where."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    refuse_plans(config.checkpoint, "a server has many clients and would mix their plans")
    config.token()  # before the model is loaded: that may take minutes
    taken = listen(config.host, config.port)
    policy = Policy.load(
        config.checkpoint,
        config.device,
        temperature=config.temperature,
        top_k=config.top_k,
        seed=config.seed,
        compile=config.compile,
    )
    print(f"policy server: ws://{place(config.host, taken)}  (Ctrl-C ends it)", flush=True)
    asyncio.run(serve_policy(policy, config, taken))
    print("stopped")
