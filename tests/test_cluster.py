# SPDX-License-Identifier: Apache-2.0
"""Shards over processes: each result once, errors as they are, dead workers replaced, nothing left running."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lapa_core.cluster import map_shards
from lapa_core.errors import DataError, SetupError


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    if number == 3:
        raise DataError("shard 3 is damaged; record it again")
    return number


@dataclass(frozen=True)
class Dies:
    """Kills its own process at shard 2, as the kernel does when memory runs out."""

    marker: Path
    always: bool

    def __call__(self, number: int) -> int:
        if number == 2 and (self.always or not self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number


@pytest.mark.parametrize("workers", [1, 2])
def test_every_shard_comes_back_once_with_its_position(workers):
    results = list(map_shards(square, [5, 6, 7, 8, 9], workers=workers))
    assert sorted(results) == [(0, 25), (1, 36), (2, 49), (3, 64), (4, 81)]
    assert not multiprocessing.active_children()


def test_no_shards_are_no_work():
    assert list(map_shards(square, [], workers=4)) == []


def test_an_error_arrives_as_it_is_and_ends_the_workers():
    with pytest.raises(DataError, match="shard 3 is damaged"):
        list(map_shards(refuse, list(range(20)), workers=2))
    assert not multiprocessing.active_children()


def test_a_caller_who_stops_leaves_no_worker():
    results = map_shards(square, list(range(50)), workers=2)
    next(iter(results))
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_replaced_and_its_shards_done(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        results = map_shards(Dies(tmp_path / "died", always=False), list(range(6)), workers=2)
        assert sorted(results) == [(number, number) for number in range(6)]
    assert "a worker process died" in caplog.text


def test_workers_that_keep_dying_are_given_up(tmp_path):
    with pytest.raises(SetupError, match="died 3 times"):
        list(map_shards(Dies(tmp_path / "died", always=True), list(range(6)), workers=2))
    assert not multiprocessing.active_children()


def test_without_ray_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SetupError, match=r"pip install 'lapa_core\[ray\]'"):
        list(map_shards(square, [1, 2], ray="auto"))
