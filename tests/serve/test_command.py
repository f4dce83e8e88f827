# SPDX-License-Identifier: Apache-2.0
"""`lapa serve` as a process, with the policy that ships, and the settings that it refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from lapa_core.errors import ContractError
from lapa_core.listen import listen, place
from lapa_core.policy import Policy
from lapa_core.serve import ServeConfig
from lapa_core.serve.config import TOKEN_VARIABLE
from tests.serve.tools import openpi_client, openpi_request

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_shipped_policy_is_served_until_a_signal():
    process = subprocess.Popen(
        [sys.executable, "-m", "lapa_core", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, TOKEN_VARIABLE: ""},
    )  # fmt: skip
    try:
        address = re.search(r"ws://\S+", process.stdout.readline()).group()
        frame = np.random.default_rng(0).integers(0, 255, (128, 160, 3), np.uint8)
        remote, local = Policy.load(address), Policy.load()
        for words in ("push the red block left", "point to the blue block"):
            ours, theirs = remote.act(frame, words), local.act(frame, words)
            assert np.array_equal(ours.bins, theirs.bins)
            assert np.array_equal(ours.delta.to_array(), theirs.delta.to_array())
            assert ours.latent == theirs.latent
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stdout.read() == "stopped\n"
        remote.close()
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.slow
def test_the_shipped_policy_decides_on_several_frames_as_on_each_alone():
    engine = Policy.load(temperature=0.0).engine
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    words = ("push the red block left", "point to the blue block", "push it")
    for frame, asked, together in zip(frames, words, engine.step_many(frames, words), strict=True):
        alone = engine.step(frame, asked)
        assert np.array_equal(together.bins_7, alone.bins_7)
        assert together.latent == alone.latent


STUCK = """
import asyncio, time
from lapa_core.listen import listen
from lapa_core.policy import Policy
from lapa_core.serve.config import ServeConfig
from lapa_core.serve.run import serve_policy
from tests.serve.tools import config

class Stuck:
    def step(self, frame, instruction):
        print("asked", flush=True)
        time.sleep(60)

taken = listen("127.0.0.1", 0)
print(taken.getsockname()[1], flush=True)
asyncio.run(serve_policy(Policy(Stuck(), config()), ServeConfig(), taken))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_server_whose_model_is_stuck(number):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, TOKEN_VARIABLE: ""},
    )  # fmt: skip
    try:
        port = int(process.stdout.readline())
        with openpi_client(f"ws://127.0.0.1:{port}") as connection:
            connection.send(openpi_request())
            assert process.stdout.readline() == "asked\n"
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            process.send_signal(number)
            assert process.wait(5) == -number
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_an_address_that_others_can_reach_needs_a_token(monkeypatch, tmp_path):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert ServeConfig(host=host).token() == ""
    for host in ("0.0.0.0", "::", "192.168.0.4", "gpu.lab"):
        with pytest.raises(ContractError, match="there is no token"):
            ServeConfig(host=host).token()
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert ServeConfig(host="0.0.0.0", token_file=file).token() == "secret"
    monkeypatch.setenv(TOKEN_VARIABLE, "other")
    assert ServeConfig(host="0.0.0.0").token() == "other"


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("gpu.lab", "gpu.lab"), ("::1", "[::1]")]
)
def test_the_printed_address_is_one_that_clients_take(host, shown):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert place(host, taken) == f"{shown}:{port}"
        parts = urlsplit(f"ws://{place(host, taken)}")
    assert (parts.hostname, parts.port) == (host, port)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        ("a b", "without spaces"),
        ("a\nb", "printable"),
        ("é", "cannot be read"),
    ],
)
def test_a_token_file_of_no_use_is_refused(content, reason, tmp_path):
    file = tmp_path / "token"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ContractError, match=reason):
        ServeConfig(token_file=file).token()
    with pytest.raises(ContractError, match="cannot be read"):
        ServeConfig(token_file=tmp_path / "none").token()


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70000},
        {"max_clients": 0},
        {"max_batch": 0},
        {"batch_wait_ms": -1.0},
        {"max_message_mib": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ContractError, match=f"{next(iter(wrong))} is"):
        ServeConfig(**wrong)
