# SPDX-License-Identifier: Apache-2.0
"""The server over real sockets, spoken to as openpi's client does."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import msgpack
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lapa_core.errors import DataError, ServerError
from lapa_core.image import preprocess
from lapa_core.serve.answer import Session
from lapa_core.serve.batch import Asked, Batcher
from tests.serve.tools import (
    BINS,
    SIDE,
    Echo,
    decision,
    local,
    openpi_array,
    openpi_client,
    openpi_request,
    read_array,
    serving,
    wait,
)


@pytest.fixture
def echo() -> Echo:
    return Echo()


def refusal(connection) -> str:
    """Return the reason, after which the connection must be closed."""
    said = connection.recv(timeout=10)
    assert isinstance(said, str)
    with pytest.raises(ConnectionClosed):
        connection.recv(timeout=10)
    return said


def test_an_openpi_client_gets_the_action_that_the_policy_would_take(echo):
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    expected = local(echo).act(image, "push it").chunk_H7
    with serving(echo) as address, openpi_client(address) as connection:
        for _ in range(3):
            connection.send(openpi_request(image, "push it"))
            answer = msgpack.unpackb(connection.recv(timeout=10))
            assert np.array_equal(read_array(answer["actions"]), expected)
            assert answer["server_timing"]["infer_ms"] >= 0.0
        assert answer["server_timing"]["prev_total_ms"] > 0.0


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_may_come_as_the_bytes_of_a_file(echo, kind):
    image = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    decoded = np.asarray(Image.open(file))
    with serving(echo) as address, openpi_client(address) as connection:
        connection.send(openpi_request(file.getvalue(), "push it"))
        actions = read_array(msgpack.unpackb(connection.recv(timeout=10))["actions"])
    assert np.array_equal(actions[0], BINS.decode(Echo.bins(preprocess(decoded, SIDE), "push it")))


def test_the_metadata_describe_the_policy_and_not_the_machine(echo):
    with serving(echo) as address, connect(address, proxy=None) as connection:
        hello = msgpack.unpackb(connection.recv(timeout=10))
    assert hello["action_names"] == ["dx", "dy", "dz", "rx", "ry", "rz", "gripper"]
    assert hello["policy"]["image_px"] == SIDE
    assert "provenance" not in hello["policy"]


GRAY = np.full((20, 20, 3), 9, np.uint8)


def damaged_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()[:-900]


def huge_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5000, 2)).save(file, "PNG")
    return file.getvalue()


def with_array(**changes) -> bytes:
    array = {**openpi_array(GRAY), **{key.encode(): value for key, value in changes.items()}}
    return msgpack.packb({"observation/image": array, "prompt": "x"})


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("text", "send msgpack"),
        (b"", "no msgpack"),
        (b"\xc1", "no msgpack"),
        (openpi_request()[:-1], "no msgpack"),
        (openpi_request() + b"\x00", "no msgpack"),
        (b"\x81\xa1a" * 2000, "no msgpack"),
        (b"\xdd\x00\x10\x00\x00", "no msgpack"),
        (msgpack.packb([1, 2]), "one map"),
        (msgpack.packb({1: 2}), "no msgpack"),
        (msgpack.packb({b"prompt": "x"}), "keys are text"),
        (msgpack.packb({"a": msgpack.ExtType(1, b"x")}), "no msgpack"),
        (msgpack.packb({"prompt": "x"}), "lacks ['observation/image']"),
        (openpi_request(**{"observation/state": [0.0]}), "no use of ['observation/state']"),
        (openpi_request(prompt=""), "prompt is ''"),
        (openpi_request(prompt=3), "prompt is int"),
        (openpi_request(prompt="x" * 1001), "at most 1000 characters"),
        (openpi_request(request="one"), "whole number"),
        (openpi_request(GRAY.astype(np.float32)), "is float32 of shape (20, 20, 3)"),
        (openpi_request(GRAY.transpose(2, 0, 1).copy()), "(3, 20, 20)"),
        (openpi_request(np.zeros((0, 4, 3), np.uint8)), "(0, 4, 3)"),
        (openpi_request(np.zeros((5000, 1, 3), np.uint8)), "sides of 1 to 4096"),
        (openpi_request(b"no picture"), "cannot be decoded"),
        (openpi_request(damaged_png()), "cannot be decoded"),
        (openpi_request(huge_png()), "at most 4096"),
        (msgpack.packb({"observation/image": "path.png", "prompt": "x"}), "is a str"),
        (with_array(dtype="|O"), "dtype '|O'"),
        (with_array(dtype="V8"), "dtype 'V8'"),
        (with_array(dtype=["<f4"]), "dtype"),
        (with_array(shape=(1 << 40, 1 << 40, 3)), "and has 1200"),
        (with_array(shape=(-20, -20, 3)), "whole numbers"),
        (with_array(shape=20), "whole numbers"),
        (with_array(data=3), "bytes as data"),
        (with_array(more=1), "not as openpi-client packs"),
    ],
    ids=range(33),
)  # fmt: skip
def test_a_bad_request_is_refused_with_its_reason_and_moves_nothing(echo, message, reason):
    with serving(echo) as address:
        with openpi_client(address) as connection:
            connection.send(message)
            assert reason in refusal(connection)
        assert echo.asked == []
        with openpi_client(address) as connection:  # and the next client is served
            connection.send(openpi_request())
            assert isinstance(connection.recv(timeout=10), bytes)


def test_a_message_that_is_too_long_is_refused_unread(echo):
    with serving(echo, max_bytes=2000) as address, openpi_client(address) as connection:
        connection.send(openpi_request())
        assert isinstance(connection.recv(timeout=10), bytes)
        connection.send(openpi_request(np.zeros((40, 40, 3), np.uint8)))
        with pytest.raises(ConnectionClosed, match="1009"):
            connection.recv(timeout=10)
    assert len(echo.asked) == 1


def test_a_model_that_fails_is_told_without_its_inside_and_others_are_served(echo, caplog):
    with serving(echo) as address:
        for error, said in ((RuntimeError("out of memory"), "the model failed"), (DataError("no"), "no")):  # fmt: skip
            echo.error = error
            with openpi_client(address) as connection:
                connection.send(openpi_request())
                reason = refusal(connection)
            assert said in reason
            assert "memory" not in reason
        echo.error = None
        with openpi_client(address) as connection:
            connection.send(openpi_request())
            assert isinstance(connection.recv(timeout=10), bytes)
    assert "out of memory" in caplog.text


def test_a_mistake_of_the_server_is_said_and_logged_and_others_are_served(
    echo, caplog, monkeypatch
):
    with serving(echo) as address:
        with monkeypatch.context() as patch:
            patch.setattr(Session, "answer", lambda *_: 1 / 0)
            with openpi_client(address) as connection:
                connection.send(openpi_request())
                with pytest.raises(ConnectionClosed, match=r"1011.*its log says why"):
                    connection.recv(timeout=10)
        with openpi_client(address) as connection:
            connection.send(openpi_request())
            assert isinstance(connection.recv(timeout=10), bytes)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Authorization": "Api-Key wrong"}, {"Authorization": "secret"},
        {"Authorization": "Basic secret"}, {"Authorization": "Api-Key secret2"},
    ],
)  # fmt: skip
def test_without_the_token_nobody_comes_in(echo, headers):
    with serving(echo, token="secret") as address:
        with pytest.raises(InvalidStatus, match="401"):
            connect(address, additional_headers=headers, proxy=None)
        with openpi_client(address, "secret") as connection:
            connection.send(openpi_request())
            assert isinstance(connection.recv(timeout=10), bytes)


def test_a_web_page_cannot_use_the_server(echo):
    with serving(echo) as address, pytest.raises(InvalidStatus, match="403"):
        connect(address, origin="http://elsewhere.example", proxy=None)


def test_health_other_paths_and_a_full_house(echo):
    with serving(echo, max_clients=1, token="secret") as address:
        http = address.replace("ws", "http", 1)
        reply = httpx2.get(f"{http}/healthz")
        assert (reply.status_code, reply.text) == (200, "OK\n")
        assert httpx2.get(f"{http}/etc").status_code == 404
        with openpi_client(address, "secret"), pytest.raises(InvalidStatus, match="503"):
            connect(address, additional_headers={"Authorization": "Bearer secret"}, proxy=None)


def ask(address: str, image: np.ndarray) -> dict:
    with openpi_client(address) as connection:
        connection.send(openpi_request(image, "x"))
        return msgpack.unpackb(connection.recv(timeout=20))


def test_requests_of_several_clients_share_a_pass(echo):
    images = [np.full((SIDE, SIDE, 3), value, np.uint8) for value in (1, 2, 3, 4)]
    with serving(echo, max_batch=4, wait_s=10.0) as address, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, [address] * 4, images))
    assert [len(asked) for asked in echo.asked] == [4]
    for image, answer in zip(images, answers, strict=True):
        assert answer["server_timing"]["batch"] == 4
        assert np.array_equal(read_array(answer["actions"])[0], BINS.decode(Echo.bins(image, "x")))


def test_a_question_that_the_model_refuses_costs_the_others_in_its_pass_nothing(echo):
    class Picky(Echo):
        def step_many(self, frames, instructions, extra=None):
            if "too long" in instructions:
                self.asked.append(list(instructions))
                raise DataError("use fewer words")
            return super().step_many(frames, instructions, extra)

    picky = Picky()
    with serving(picky, max_batch=3, wait_s=10.0) as address, ExitStack() as clients:
        three = [clients.enter_context(openpi_client(address)) for _ in range(3)]
        for client, words in zip(three, ("x", "too long", "yy"), strict=True):
            client.send(openpi_request(GRAY, words))
        assert refusal(three[1]) == "use fewer words"
        for client, words in ((three[0], "x"), (three[2], "yy")):
            actions = read_array(msgpack.unpackb(client.recv(timeout=10))["actions"])
            assert np.array_equal(actions[0], BINS.decode(Echo.bins(GRAY[:SIDE, :SIDE], words)))
    assert sorted(picky.asked[0]) == ["too long", "x", "yy"]


def test_what_is_beside_the_frame_reaches_an_engine_that_takes_one_at_a_time():
    class Single:
        def step(self, frame, instruction):
            raise AssertionError("the state is lost")

        def step_with(self, frame, instruction, extra):
            return decision(np.full(7, int(extra["state"][0])), None)

    batcher = Batcher(Single(), max_batch=4, wait_s=0.0)
    asked = Asked(np.zeros((SIDE, SIDE, 3), np.uint8), "push it", {"state": np.ones(1)})
    decided, _ = batcher.ask(asked, lambda: False)
    batcher.close()
    assert decided.bins_7.tolist() == [1] * 7


def test_a_request_whose_client_has_left_is_not_thought_about(echo):
    echo.go_on.clear()
    with serving(echo, max_clients=8) as address, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, address, GRAY)
        wait(lambda: echo.asked, "the first pass")
        with openpi_client(address) as connection:
            connection.send(openpi_request(prompt="nobody waits"))
            time.sleep(0.1)  # it is in the queue behind the first
        echo.go_on.set()
        first.result()
        ask(address, GRAY)
    assert echo.asked == [["x"], ["x"]]


def test_an_answer_under_way_is_sent_before_the_server_ends(echo):
    echo.go_on.clear()
    server = ExitStack()
    address = server.enter_context(serving(echo))
    with (
        openpi_client(address) as busy,
        openpi_client(address) as idle,
        ThreadPoolExecutor(1) as pool,
    ):
        busy.send(openpi_request())
        wait(lambda: echo.asked, "the request")
        ended = pool.submit(server.close)
        with pytest.raises(ConnectionClosed, match="the server ends"):
            idle.recv(timeout=10)
        with pytest.raises(OSError, match="refused"):
            connect(address, proxy=None)
        echo.go_on.set()
        assert isinstance(busy.recv(timeout=10), bytes)
        with pytest.raises(ConnectionClosed, match="the server ends"):
            busy.recv(timeout=10)
        ended.result()


def test_after_the_end_nobody_waits(echo):
    """A request behind the end of the queue would keep its thread, and with it the process, for ever."""
    batcher = Batcher(echo, max_batch=4, wait_s=0.0)
    batcher.close()
    with pytest.raises(ServerError, match="the server ends"):
        batcher.ask(Asked(np.zeros((SIDE, SIDE, 3), np.uint8), "push it", {}), lambda: False)
    assert echo.asked == []


def test_an_engine_that_answers_too_few_does_not_end_the_thread(echo):
    class Forgetful(Echo):
        def step_many(self, frames, instructions, extra=None):
            decisions = super().step_many(frames, instructions, extra)
            return decisions if len(self.asked) > 1 else []

    batcher = Batcher(Forgetful(), max_batch=4, wait_s=0.0)
    asked = Asked(np.zeros((SIDE, SIDE, 3), np.uint8), "push it", {})
    with pytest.raises(ServerError, match="the model failed"):
        batcher.ask(asked, lambda: False)
    decided, _ = batcher.ask(asked, lambda: False)
    batcher.close()
    assert decided.bins_7.tolist() == Echo.bins(*asked[:2]).tolist()
