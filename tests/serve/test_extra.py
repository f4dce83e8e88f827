# SPDX-License-Identifier: Apache-2.0
"""Further cameras and the state, for policies that take them."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from lapa_core.errors import DataError, ServerError
from lapa_core.image import preprocess
from lapa_core.policy import Policy
from lapa_core.serve.client import connect_policy
from tests.serve.tools import (
    SIDE,
    Echo,
    config,
    openpi_array,
    openpi_client,
    openpi_request,
    serving,
)

MODEL = {"kind": "hf", "cameras": ["front", "wrist"], "proprioception": True, "state_dim": 3}
MANY = {**config(), "model": MODEL}
RNG = np.random.default_rng(0)
FRONT, WRIST = RNG.integers(0, 255, (2, 20, 30, 3), np.uint8)
STATE = np.array([0.1, -0.2, 0.3], np.float32)


@pytest.fixture
def echo() -> Echo:
    return Echo()


def test_they_reach_the_model_as_they_reach_a_local_one(echo):
    extra = {"wrist": WRIST, "state": STATE}
    local = Policy(echo, MANY).act(FRONT, "push it", extra)
    with serving(echo, policy_config=MANY) as address:
        remote = connect_policy(address)
        step = remote.act(FRONT, "push it", extra)
        remote.close()
    assert np.array_equal(step.delta.to_array(), local.delta.to_array())
    here, there = echo.extras
    for name, value in (("wrist", preprocess(WRIST, SIDE)), ("state", STATE)):
        assert np.array_equal(here[name], value[None])
        assert np.array_equal(there[name], value[None])


def test_openpi_clients_send_the_wrist_camera_under_its_own_key(echo):
    state = openpi_array(STATE.astype(float))
    more = {"observation/wrist_image": openpi_array(WRIST), "observation/state": state}
    with serving(echo, policy_config=MANY) as address, openpi_client(address) as connection:
        connection.send(openpi_request(FRONT, **more))
        assert "actions" in msgpack.unpackb(connection.recv(timeout=10))
    assert np.array_equal(echo.extras[0]["wrist"][0], preprocess(WRIST, SIDE))


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({}, r"lacks \['observation/wrist_image', 'observation/state'\]"),
        ({"state": STATE}, r"lacks \['observation/wrist_image'\]"),
        ({"wrist": WRIST, "state": STATE[:2]}, r"float32 \(2,\); an array of 3 floats"),
        ({"wrist": WRIST, "state": STATE * np.nan}, "must be finite"),
        ({"wrist": WRIST, "state": STATE.astype(float) * 1e300}, "must be finite"),
        ({"wrist": WRIST, "state": np.zeros(3, int)}, "an array of 3 floats"),
    ],
)
def test_what_is_missing_or_wrong_is_named(echo, extra, reason):
    with serving(echo, policy_config=MANY) as address:
        remote = connect_policy(address)
        with pytest.raises(ServerError, match=reason):
            remote.act(FRONT, "push it", extra)
        with pytest.raises(DataError, match=r"no use of \['overhead'\]"):
            remote.act(FRONT, "push it", {"overhead": WRIST})
        remote.close()
    assert echo.asked == []
