# SPDX-License-Identifier: Apache-2.0
"""A policy that reads the codes it named before: the server remembers them for each client apart."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from lapa_core.errors import DataError
from lapa_core.policy import Policy
from lapa_core.serve.client import connect_policy
from lapa_core.vla.history import HISTORY, CodeMemory
from tests.serve.tools import Echo, config, openpi_client, openpi_request, serving

TOLD = {**config(), "latent": [2, 8], "gap_s": 0.2, "history": 1}
FRAME = np.full((20, 30, 3), 90, np.uint8)
NONE = [[-1, -1]]


def shown(echo: Echo) -> list[list[list[int]]]:
    """Return the codes (1, 2) that came with each question."""
    return [codes.tolist() for extra in echo.extras for codes in extra[HISTORY]]


@pytest.fixture
def echo() -> Echo:
    return Echo()


def test_a_remote_policy_is_shown_what_a_local_one_is(echo):
    words = ["push it", "push it", "point to it", "point to it"]
    local = Policy(echo, TOLD, memory=CodeMemory.of(TOLD))
    for instruction in words:
        local.act(FRAME, instruction)
    with serving(echo, policy_config=TOLD) as address:
        remote = connect_policy(address)
        for instruction in words:
            remote.act(FRAME, instruction)
        remote.close()
    here, there = shown(echo)[:4], shown(echo)[4:]
    assert here == there == [NONE, [[7, 1]], NONE, [[11, 1]]]


def test_each_client_has_a_memory_of_its_own(echo):
    with serving(echo, policy_config=TOLD) as address:
        one, other = connect_policy(address), connect_policy(address)
        one.act(FRAME, "push it")
        other.act(FRAME, "push it")
        one.act(FRAME, "push it")
        one.close()
        other.close()
    assert shown(echo) == [NONE, NONE, [[7, 1]]]


def test_an_episode_begins_anew_where_the_client_says_so(echo):
    with serving(echo, policy_config=TOLD) as address:
        remote = connect_policy(address)
        for _ in range(2):
            remote.act(FRAME, "push it")
        remote.reset()
        remote.act(FRAME, "push it")
        remote.close()
    assert shown(echo) == [NONE, [[7, 1]], NONE]


def test_nobody_sends_codes(echo):
    with serving(echo, policy_config=TOLD) as address:
        remote = connect_policy(address)
        with pytest.raises(DataError, match=r"no use of \['history'\]"):
            remote.act(FRAME, "push it", {HISTORY: np.zeros((1, 2), np.int64)})
        remote.close()
        with openpi_client(address) as connection:
            connection.send(openpi_request())
            assert "actions" in msgpack.unpackb(connection.recv(timeout=10))
    assert shown(echo) == [NONE]
