# SPDX-License-Identifier: Apache-2.0
"""A `lapa serve` in a thread of the test, whose model names the frame it saw and is slow, freezes or ends when told."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np

from lapa_core.actions.bins import ActionBins
from lapa_core.listen import listen
from lapa_core.policy import Decision
from lapa_core.robot.contract import RobotContract
from lapa_core.serve.answer import Session
from lapa_core.serve.batch import Batcher
from lapa_core.serve.schema import describe
from lapa_core.serve.server import PolicyServer
from lapa_core.serve.wire import pack

BINS = ActionBins([np.linspace(-0.001, 0.001, 17)] * 6 + [[-0.5, 0.5, 1.5]])


def bins_of(gray: int) -> list[int]:
    """Return the bins that the model answers for a frame of one gray."""
    return [gray % 16, gray // 16, 0, 0, 0, 0, 0]


class Server:
    """Serves on a port that stays the same over ends and starts; its model is here, as the engine."""

    def __init__(self, contract: RobotContract):
        self._facts = {
            "bins": BINS.to_dict(),
            "image_px": 16,
            "contract_hash": contract.hash,
            "control_rate_hz": contract.control_rate_hz,
        }
        self._port = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.delay_s = 0.0
        self.start()

    def step(self, frame, instruction):
        assert self.go_on.wait(20.0)
        time.sleep(self.delay_s)
        bins = np.array(bins_of(int(frame[0, 0, 0])))
        action = BINS.decode(bins)
        return Decision(action, bins, None, action[None])

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    def start(self) -> None:
        taken = listen("127.0.0.1", self._port)
        self._port = taken.getsockname()[1]
        self._batcher = Batcher(self, max_batch=4, wait_s=0.0)
        self._server = PolicyServer(
            lambda gone: Session(self._batcher, self._facts, gone), pack(describe(self._facts)),
            token="", max_clients=8, max_message_bytes=1 << 20,
        )  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._server.run(taken))
        )
        self._thread.start()

    def end(self) -> None:
        self.go_on.set()
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(20.0)
        assert not self._thread.is_alive()
        self._loop.close()
        self._batcher.close()
