# SPDX-License-Identifier: Apache-2.0
"""A policy whose decision shows what it was asked, a server of it in a thread, and openpi's packing written out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack
import numpy as np
from websockets.sync.client import ClientConnection, connect

from lapa_core.actions.bins import ActionBins
from lapa_core.listen import listen
from lapa_core.policy import Decision, Policy
from lapa_core.serve.answer import Session
from lapa_core.serve.batch import Batcher
from lapa_core.serve.schema import describe
from lapa_core.serve.server import PolicyServer
from lapa_core.serve.wire import pack

SIDE = 16
BINS = ActionBins([np.linspace(-0.02, 0.02, 9)] * 6 + [[-0.5, 0.5, 1.5]])


def config(bins: ActionBins = BINS) -> dict:
    return {
        "kind": "policy",
        "bins": bins.to_dict(),
        "image_px": SIDE,
        "contract_hash": "c" * 64,
        "control_rate_hz": 5.0,
        "provenance": {"command": "/home/somebody"},
    }


def decision(bins: np.ndarray, latent: tuple[int, ...] | None) -> Decision:
    action = BINS.decode(bins)
    return Decision(action, bins, latent, np.stack([action, 2 * action * (1, 1, 1, 1, 1, 1, 0)]))


class Echo:
    """Answers with bins that are made of the frame's mean and the length of the instruction."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.extras: list[dict] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.error: Exception | None = None

    @staticmethod
    def bins(frame: np.ndarray, instruction: str) -> np.ndarray:
        mean = int(frame.mean())
        return np.array([mean % 8, mean // 8 % 8, len(instruction) % 8, 0, 0, 0, mean % 2])

    def step_many(self, frames: np.ndarray, instructions: tuple[str, ...], extra=None):
        self.extras.append(extra)
        self.asked.append(list(instructions))
        assert self.go_on.wait(20.0)
        if self.error is not None:
            raise self.error
        return [
            decision(self.bins(frame, words), (len(words), 1))
            for frame, words in zip(frames, instructions, strict=True)
        ]

    def step_with(self, frame: np.ndarray, instruction: str, extra: dict):
        rows = {name: value[None] for name, value in extra.items()}
        return self.step_many(frame[None], (instruction,), rows)[0]

    def step(self, frame: np.ndarray, instruction: str):
        return self.step_many(frame[None], (instruction,))[0]


@contextmanager
def serving(engine, *, port: int = 0, token: str = "", policy_config: dict | None = None, **limits):
    """Serve in a thread of this process; yields the address, and stops gracefully."""
    facts = config() if policy_config is None else policy_config
    taken = listen("127.0.0.1", port)
    address = f"ws://127.0.0.1:{taken.getsockname()[1]}"
    batcher = Batcher(
        engine, max_batch=limits.pop("max_batch", 8), wait_s=limits.pop("wait_s", 0.0)
    )
    server = PolicyServer(
        lambda gone: Session(batcher, facts, gone), pack(describe(facts)), token=token,
        max_clients=limits.pop("max_clients", 4), max_message_bytes=limits.pop("max_bytes", 1 << 20),
    )  # fmt: skip
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.run(taken)))
    thread.start()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(server.stop)
        thread.join(20.0)
        assert not thread.is_alive()
        loop.close()
        batcher.close()


def local(engine) -> Policy:
    return Policy(engine, config())


def openpi_array(array: np.ndarray) -> dict:
    """As `msgpack_numpy.py` of openpi-client 0.1.2 packs it."""
    return {
        b"__ndarray__": True,
        b"data": array.tobytes(),
        b"dtype": array.dtype.str,
        b"shape": array.shape,
    }


def openpi_request(image=None, prompt="push the red block left", **more) -> bytes:
    image = np.full((20, 30, 3), 90, np.uint8) if image is None else image
    content = image if isinstance(image, bytes) else openpi_array(image)
    return msgpack.packb({"observation/image": content, "prompt": prompt, **more})


def read_array(value: dict) -> np.ndarray:
    return np.ndarray(buffer=value[b"data"], dtype=np.dtype(value[b"dtype"]), shape=value[b"shape"])


@contextmanager
def openpi_client(address: str, token: str = "") -> Iterator[ClientConnection]:
    """Connect with the arguments that openpi's client connects with, and take the metadata."""
    headers = {"Authorization": f"Api-Key {token}"} if token else None
    with connect(
        address, compression=None, max_size=None, additional_headers=headers, proxy=None
    ) as connection:
        assert "policy" in msgpack.unpackb(connection.recv(timeout=10))
        yield connection


def wait(condition, what: str, limit_s: float = 10.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, f"waited {limit_s} s for {what}"
        time.sleep(0.005)
