# SPDX-License-Identifier: Apache-2.0
"""What was read last, as much as fits into a given memory. Standard library only."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by key; the one that was used longest ago goes first. Threads take turns.

    Args:
        max_bytes: memory for all values; a single larger one is kept until the next is made [bytes].
        size_of: size of a value [bytes].
    """

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._size_of = size_of
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made now if it is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            value = make()
            self.num_bytes += self._size_of(value)
            self._values[key] = value
            while self.num_bytes > self.max_bytes and len(self._values) > 1:
                _, oldest = self._values.popitem(last=False)
                self.num_bytes -= self._size_of(oldest)
            return value
