# SPDX-License-Identifier: Apache-2.0
"""Values that are kept within some memory."""

import time
from concurrent.futures import ThreadPoolExecutor

from lapa_core.data.kept import Kept


def test_kept_values_stay_within_their_memory():
    kept, made = Kept(10, len), []

    def get(key, size):
        return kept.get(key, lambda: made.append(key) or "x" * size)

    get("a", 4)
    get("b", 4)
    get("a", 4)
    get("c", 4)  # b was used longest ago
    assert (made, len(kept), kept.num_bytes) == (["a", "b", "c"], 2, 8)
    get("a", 4)
    get("b", 4)
    assert (made, kept.num_bytes) == (["a", "b", "c", "b"], 8)
    assert len(get("large", 50)) == 50
    assert (len(kept), kept.num_bytes) == (1, 50)
    get("a", 4)
    assert (len(kept), kept.num_bytes) == (1, 4)


def test_kept_values_are_made_once_by_many_threads():
    kept, made = Kept(100, len), []

    def make():
        time.sleep(0.01)
        made.append(1)
        return "x"

    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(kept.get, number % 2, make) for number in range(16)]
        assert {future.result() for future in found} == {"x"}
    assert (len(made), kept.num_bytes) == (2, 2)
