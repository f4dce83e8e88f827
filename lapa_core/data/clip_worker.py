# SPDX-License-Identifier: Apache-2.0
"""A process that decodes clips into memory it shares with the trainer; started by `lapa_core.data.clip_pool`.

It reads (ticket, slot, request) from a connection and answers (ticket, reason), where an empty reason is success. It
ends when the trainer is gone: then the connection is closed, or the parent is another process.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.clip_frames import FrameRequest, read_request
from lapa_core.data.scaled_video import SquareScaler
from lapa_core.errors import DataError

READY = -1
"""Ticket of the first answer: the process has started."""
_CHECK_S = 5.0
"""How often an idle worker looks whether its trainer lives [s]."""


def decode_into(request: FrameRequest, scaler: SquareScaler, slot_FSSC: NDArray[np.uint8]) -> str:
    """Fill the first frames of a slot and return an empty text, or return why it cannot be done."""
    try:
        read_request(request, scaler, slot_FSSC[: len(request.numbers)])
    except (DataError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def serve(connection: Connection, slots_NFSSC: NDArray[np.uint8]) -> None:
    """Decode what is asked for until the trainer is gone."""
    parent = os.getppid()
    scaler = SquareScaler(slots_NFSSC.shape[2])
    connection.send((READY, ""))
    try:
        while os.getppid() == parent:
            if connection.poll(_CHECK_S):
                ticket, slot, request = connection.recv()
                connection.send((ticket, decode_into(request, scaler, slots_NFSSC[slot])))
    except (EOFError, ConnectionError):
        return


def main() -> None:
    """Open what the parent has left open, and serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle
    connection_fd, memory_fd, *shape = (int(word) for word in sys.argv[1:])
    memory = mmap.mmap(memory_fd, int(np.prod(shape)))
    serve(Connection(connection_fd), np.frombuffer(memory, np.uint8).reshape(shape))


if __name__ == "__main__":
    main()
