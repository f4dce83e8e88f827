# SPDX-License-Identifier: Apache-2.0
"""A policy whose model is elsewhere: equal to a local one, and what happens when the server is dead, slow or wrong."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from threading import Thread
from typing import ClassVar

import msgpack
import numpy as np
import pytest
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_script

from lapa_core.errors import ActionError, ContractError, ServerError
from lapa_core.policy import Decision, Policy
from lapa_core.serve.client import connect_policy
from lapa_core.serve.schema import describe
from lapa_core.serve.wire import pack
from tests.serve.tools import Echo, config, decision, local, serving, wait

FRAME = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("LAPA_SERVE_TOKEN", raising=False)


def test_it_does_what_the_local_policy_does(echo):
    with serving(echo) as address:
        remote = Policy.load(address)
        for words in ("push it", "point to the blue block"):
            ours, theirs = remote.act(FRAME, words), local(echo).act(FRAME, words)
            assert np.array_equal(ours.bins, theirs.bins)
            assert np.array_equal(ours.delta.to_array(), theirs.delta.to_array())
            assert np.array_equal(ours.chunk_H7, theirs.chunk_H7)
            assert ours.latent == theirs.latent == (len(words), 1)
        assert (remote.image_px, remote.contract_hash, remote.control_rate_hz) == (16, "c" * 64, 5.0)  # fmt: skip
        remote.close()


def test_a_robot_pc_needs_no_torch(echo):
    program = (
        "import sys, numpy as np; from lapa_core.policy import Policy\n"
        "step = Policy.load(sys.argv[1]).act(np.zeros((20, 20, 3), np.uint8), 'push it')\n"
        "assert step.bins.shape == (7,)\n"
        "heavy = {'torch', 'transformers', 'scipy', 'mujoco'} & set(sys.modules); assert not heavy, heavy"
    )
    with serving(echo) as address:
        subprocess.run([sys.executable, "-c", program, address], check=True, timeout=30)


def test_the_token_comes_from_the_environment(echo, monkeypatch):
    with serving(echo, token="secret") as address:
        with pytest.raises(ServerError, match="token is missing or wrong"):
            connect_policy(address)
        monkeypatch.setenv("LAPA_SERVE_TOKEN", "secret")
        connect_policy(address).close()


def test_a_late_answer_is_never_taken_for_the_next_one(echo):
    with serving(echo) as address:
        remote = connect_policy(address, timeout_s=0.3)
        echo.go_on.clear()
        begun_s = time.monotonic()
        with pytest.raises(ServerError, match=r"did not answer within 0\.3 s"):
            remote.act(FRAME, "the first")
        assert time.monotonic() - begun_s < 1.0
        echo.go_on.set()  # its answer comes now, to nobody
        step = remote.act(FRAME, "another one!")
        assert step.latent == (len("another one!"), 1)
        remote.close()


def test_it_connects_again_to_a_server_that_died_and_came_back(echo):
    with serving(echo) as address:
        remote = connect_policy(address)
        remote.act(FRAME, "one")
    port = int(address.rpartition(":")[2])
    for _ in range(2):
        with pytest.raises(ServerError, match="no policy server at"):
            remote.act(FRAME, "two")
    with serving(echo, port=port):
        assert remote.act(FRAME, "three").latent == (5, 1)
        remote.close()
    assert [words for (words,) in echo.asked] == ["one", "three"]


def test_a_server_that_came_back_with_another_policy_is_not_obeyed(echo):
    with serving(echo) as address:
        remote = connect_policy(address)
    port = int(address.rpartition(":")[2])
    with serving(echo, port=port, policy_config={**config(), "control_rate_hz": 10.0}):
        for _ in range(2):
            with pytest.raises(ServerError, match="another policy"):
                remote.act(FRAME, "push it")
    assert echo.asked == []


@contextmanager
def scripted(handler):
    """Serve what a test wrote; yields the address."""
    connections: list[ServerConnection] = []

    def kept(connection: ServerConnection) -> None:
        connections.append(connection)
        handler(connection)

    with serve_script(kept, "127.0.0.1", 0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()
    for connection in connections:
        connection.close()


class Absent:
    """Marks a key that is left out."""


def reply(request=1, **changes) -> bytes:
    fields = decision(np.zeros(7, np.int64), None)._asdict() | changes
    answer = {"request": request, "decision": without_absent(fields)}
    return pack(without_absent(answer))


def without_absent(entries: dict) -> dict:
    return {key: value for key, value in entries.items() if not isinstance(value, Absent)}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(request=7), "something else than it was asked"),
        (reply(request=Absent()), "something else than it was asked"),
        (pack({"request": 1}), "no decision"),
        (reply(bins_7=Absent()), "no decision"),
        (reply(bins_7=np.zeros(7)), "no decision"),
        (reply(action_7=np.zeros(6)), "no decision"),
        (reply(chunk_H7=np.zeros((0, 7))), "no decision"),
        (reply(latent="x"), "no decision"),
        (reply(more=1), "no decision"),
        (b"\xc1", "not understood"),
        ("out of order", "refuses: out of order"),
    ],
)
def test_an_answer_that_is_not_one_is_refused_and_the_connection_with_it(answer, reason):
    connections = []

    def script(connection):
        connections.append(connection)
        connection.send(pack(describe(config())))
        for _ in connection:
            connection.send(answer)

    with scripted(script) as address:
        remote = connect_policy(address)
        with pytest.raises(ServerError, match=reason):
            remote.act(FRAME, "push it")
        wait(lambda: connections[0].state.name == "CLOSED", "the end of the connection")


def test_an_action_that_is_none_is_refused_on_both_sides():
    class Wrong(Echo):
        def step_many(self, frames, instructions, extra):
            return [decision(np.zeros(7, int), None)._replace(action_7=np.full(7, np.nan))]

    with serving(Wrong()) as address, pytest.raises(ServerError, match="must be finite"):
        connect_policy(address).act(FRAME, "push it")

    def script(connection):
        connection.send(pack(describe(config())))
        for _ in connection:
            connection.send(reply(action_7=np.full(7, np.inf)))

    with scripted(script) as address, pytest.raises(ActionError, match="must be finite"):
        connect_policy(address).act(FRAME, "push it")


def test_the_hysteresis_of_the_gripper_outlives_the_connection():
    class Undecided(Echo):
        openings: ClassVar[list[float]] = [0.9, 0.55, 0.45, 0.45, 0.1]

        def step_many(self, frames, instructions, extra):
            action = np.array([0, 0, 0, 0, 0, 0, self.openings.pop(0)])
            return [Decision(action, np.zeros(7, int), None, action[None])]

    with serving(Undecided(), policy_config={**config(), "gripper_hysteresis": 0.2}) as address:
        remote = connect_policy(address)
        openings = [remote.act(FRAME, "push it").delta.gripper for _ in range(3)]
        remote.close()
        openings += [remote.act(FRAME, "push it").delta.gripper for _ in range(2)]
        remote.close()
    assert openings == [1.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("hello", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_what_is_no_policy_server_is_named(hello):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"ws://127.0.0.1:{other.getsockname()[1]}"
        if not hello:  # takes the connection and says nothing
            with pytest.raises(ServerError, match="did not answer within"):
                connect_policy(address, timeout_s=0.2)
            return

        def speak() -> None:
            client, _ = other.accept()
            with client:
                client.recv(4096)
                client.sendall(hello)

        thread = Thread(target=speak)
        thread.start()
        with pytest.raises(ServerError, match=r"refuses the connection|does not speak"):
            connect_policy(address)
        thread.join()


def test_another_websocket_server_is_no_lapa_serve():
    def script(connection):
        connection.send(msgpack.packb({"some": "policy"}))
        connection.recv()

    with scripted(script) as address, pytest.raises(ServerError, match="no `lapa serve`"):
        connect_policy(address)


def test_a_server_whose_policy_lacks_a_fact_is_refused():
    facts = describe(config())
    del facts["policy"]["contract_hash"]

    def script(connection):
        connection.send(pack(facts))
        connection.recv()

    with (
        scripted(script) as address,
        pytest.raises(ServerError, match=r"lacks \['contract_hash'\]"),
    ):
        connect_policy(address)


def test_addresses_that_are_none_and_settings_that_belong_to_the_server():
    for address in ("ws://", "ws://host:port", "ws://host/path", "ws://host:99999"):
        with pytest.raises(ContractError, match="no address of a policy server"):
            connect_policy(address)
    with pytest.raises(ContractError, match="timeout_s is 0"):
        connect_policy("ws://127.0.0.1:1", timeout_s=0.0)
    for name, value in (("temperature", 1.0), ("top_k", 5), ("seed", 1), ("device", "cuda")):
        with pytest.raises(ContractError, match=rf"\['{name}'\] .* give it to `lapa serve`"):
            Policy.load("ws://127.0.0.1:1", **{name: value})
    with pytest.raises(ServerError, match=r"no policy server at ws://127\.0\.0\.1:1"):
        Policy.load("ws://127.0.0.1:1")
