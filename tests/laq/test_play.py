# SPDX-License-Identifier: Apache-2.0
"""The world model: rollouts of a decoder whose effect is known, the page over HTTP, and the exported film."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from lapa_core.data.index import IndexConfig, build_index
from lapa_core.data.video import VideoQuality, decode_frames, encode_video
from lapa_core.errors import ActionError, CheckpointError, ContractError, DataError, SetupError
from lapa_core.laq.checkpoint import build_laq, save_laq
from lapa_core.laq.config import ConvLaqConfig
from lapa_core.laq.play import run
from lapa_core.laq.play.config import LaqPlayConfig
from lapa_core.laq.play.export import enlarge, export_film
from lapa_core.laq.play.policy import CodePolicy
from lapa_core.laq.play.run import Game, main, open_game
from lapa_core.laq.play.starts import Start, Starts
from lapa_core.laq.play.world import World, parse_codes
from lapa_core.listen import listen
from lapa_core.vla.base import make_model
from lapa_core.vla.checkpoint import PRETRAINED, save_vla
from lapa_core.vla.config import TrunkConfig
from lapa_core.vla.earlier import EarlierCodes
from lapa_core.vla.history import NO_CODE
from lapa_core.vla.words import Vocabulary
from tests.laq.dots import DotModel
from tests.toy import toy_store

LEFT, RIGHT, UP = (0,), (1,), (2,)
DESIGN = ConvLaqConfig(width=8, codes=4)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    store = toy_store(episodes=3)
    for number in range(3):
        frames = store.subset([number]).frames
        encode_video(folder / f"{number}.mp4", frames, 5, VideoQuality(crf=1))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = build_laq(DESIGN)
    return save_laq(tmp_path_factory.mktemp("laq") / "checkpoint", model, DESIGN, gap_s=0.4)


def start() -> Start:
    frame = np.full((32, 32, 3), 60, np.uint8)
    frame[14:18, 14:18] = (230, 40, 40)
    return Start(picture_SSC=frame, episode=0, frame=0, instruction="move the dot left")


def test_codes_move_the_dot_and_undo_takes_it_back():
    world = World(DotModel(), start())
    world.step(LEFT)
    world.step(UP)
    assert np.array_equal(world.film[2], np.roll(start().picture_SSC, (-4, -4), (0, 1)))
    world.undo()
    assert world.played == [LEFT]
    assert np.array_equal(world.film[-1], np.roll(start().picture_SSC, -4, 1))
    world.reset()
    world.undo()
    assert len(world.film) == 1


def test_choices_show_each_code_on_the_present_frame():
    world = World(DotModel(), start())
    world.step(RIGHT)
    pictures = world.choices(LEFT, 0)
    assert np.array_equal(pictures[0], start().picture_SSC)
    assert np.array_equal(pictures[1], np.roll(start().picture_SSC, 8, 1))


def test_codes_that_do_not_exist_are_refused():
    world = World(DotModel(), start())
    with pytest.raises(ActionError, match="from 0 to 3"):
        world.step((4,))
    with pytest.raises(ActionError, match="takes 1 per step"):
        world.step((0, 0))
    with pytest.raises(ActionError, match="position is 1"):
        world.choices(LEFT, 1)
    with pytest.raises(ContractError, match="--policy"):
        world.policy_step()


def test_a_model_that_paints_nothing_is_refused():
    model = DotModel()
    model.paints = False
    with pytest.raises(ContractError, match="nothing to watch"):
        World(model, start())


@pytest.mark.parametrize(
    ("text", "tokens", "steps"),
    [
        ("3,3,5", 1, [(3,), (3,), (5,)]),
        ("3 3 5", 1, [(3,), (3,), (5,)]),
        ("0,1,2,3 0,0,1,0", 4, [(0, 1, 2, 3), (0, 0, 1, 0)]),
        ("", 4, []),
    ],
)
def test_codes_are_read_from_text(text, tokens, steps):
    assert parse_codes(text, tokens) == steps


@pytest.mark.parametrize(("text", "tokens"), [("3,x", 1), ("3,,5", 1), ("0,1,2", 4)])
def test_text_that_names_no_codes_is_refused(text, tokens):
    with pytest.raises(ActionError, match="as in"):
        parse_codes(text, tokens)


def test_start_frames_come_from_data_and_from_an_index(videos, tmp_path):
    build_index(IndexConfig(data=videos, out=tmp_path / "index", workers=1, progress=False))
    wanted = toy_store(episodes=3).subset([1]).frames[3]
    for data in (videos, tmp_path / "index"):
        starts = Starts(data, 32)
        assert starts.episodes == 3
        assert np.abs(starts.read(1, 3).picture_SSC.astype(int) - wanted).mean() < 3
        with pytest.raises(DataError, match="allowed is 0 to 2"):
            starts.read(3, 0)
        with pytest.raises(DataError, match="allowed is 0 to 7"):
            starts.read(0, 8)


def test_the_exported_film_decodes_to_the_frames(tmp_path):
    world = World(DotModel(), start())
    for codes in (LEFT, LEFT, UP, RIGHT):
        world.step(codes)
    fps, side = export_film(tmp_path / "new" / "film.mp4", world.film, 0.2, 100)
    assert (fps, side) == (5, 128)
    times, frames = zip(*decode_frames(tmp_path / "new" / "film.mp4"), strict=True)
    assert times == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    shown = np.stack(frames).astype(int)
    assert np.abs(shown - enlarge(np.stack(world.film), 100)).mean() < 4
    apart = np.abs(shown[:, None] - enlarge(np.stack(world.film), 100)).mean(axis=(2, 3, 4))
    assert apart.argmin(axis=1).tolist() == [0, 1, 2, 3, 4]


def test_odd_pictures_are_enlarged_to_an_even_side():
    assert enlarge(np.zeros((2, 15, 15, 3), np.uint8), 16).shape == (2, 30, 30, 3)
    assert enlarge(np.zeros((2, 15, 15, 3), np.uint8), 40).shape == (2, 60, 60, 3)
    assert enlarge(np.zeros((2, 32, 32, 3), np.uint8), 16).shape == (2, 32, 32, 3)


def make_policy(folder: Path, made_by: str, codes: int = 4, history: int = 0) -> Path:
    torch.manual_seed(1)
    trunk = TrunkConfig(width=8, keypoints=4, text_dim=8, features=16)
    model = make_model(trunk, Vocabulary.fit(["move the dot left"]), latent=(1, codes))
    if history:
        model.give_history(history)
    return save_vla(folder, PRETRAINED, model, laq=made_by, gap_s=0.4)


def test_a_policy_of_the_same_codes_chooses_them(tmp_path):
    policy = CodePolicy(make_policy(tmp_path / "policy", "a" * 64), DotModel(), "a" * 64)
    world = World(DotModel(), start(), policy)
    world.policy_step()
    world.policy_step("move the dot left")
    assert world.played[0] == policy.choose(start().picture_SSC, "move the dot left")
    assert len(world.film) == 3


def test_a_policy_that_reads_earlier_codes_is_shown_those_that_were_played(tmp_path, monkeypatch):
    path = make_policy(tmp_path / "policy", "a" * 64, history=2)
    world = World(DotModel(), start(), CodePolicy(path, DotModel(), "a" * 64))
    shown = []
    read = EarlierCodes.forward
    monkeypatch.setattr(
        EarlierCodes, "forward", lambda own, told: shown.append(told.tolist()) or read(own, told)
    )
    world.policy_step()
    assert shown == [[[[NO_CODE], [NO_CODE]]]] * len(shown) != []
    world.reset()
    for codes in (UP, LEFT, RIGHT):
        world.step(codes)
    world.undo()
    shown.clear()
    world.policy_step()
    assert shown == [[[list(LEFT), list(UP)]]] * len(shown) != []


def test_a_policy_of_other_codes_is_refused(tmp_path):
    other = make_policy(tmp_path / "other", "b" * 64)
    with pytest.raises(CheckpointError, match="another latent action model"):
        CodePolicy(other, DotModel(), "a" * 64)
    more = make_policy(tmp_path / "more", "a" * 64, codes=8)
    with pytest.raises(CheckpointError, match="1 tokens of 8 codes"):
        CodePolicy(more, DotModel(), "a" * 64)


@pytest.fixture
def client(videos):
    game = Game(World(DotModel(), start()), Starts(videos, 32), DotModel(), 0.4)
    return TestClient(game.page().application("127.0.0.1"), base_url="http://127.0.0.1:1")


def picture(client: TestClient, address: str) -> np.ndarray:
    reply = client.get(address)
    assert reply.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(reply.content)))


def test_the_page_plays_codes(client):
    state = client.get("/state").json()
    assert (state["tokens"], state["codes"], state["episodes"], state["policy"]) == (1, 4, 3, False)
    state = client.post("/step", json={"codes": [1]}).json()
    assert state["played"] == [[1]]
    moved = np.roll(start().picture_SSC, 4, 1)
    assert np.array_equal(picture(client, state["film"][1]), moved)
    choices = picture(client, "/choices?codes=0&position=0")
    assert np.array_equal(choices[:32], start().picture_SSC)
    changes = picture(client, "/choices?codes=0&position=0&changes=1")
    assert changes.shape == choices.shape == (4 * 32, 32, 3)
    assert not np.array_equal(changes, choices)


def test_undo_reset_and_next_change_the_addresses_of_the_film(client):
    shown = client.post("/step", json={"codes": [1]}).json()["film"]
    undone = client.post("/undo").json()
    assert undone["played"] == []
    assert undone["film"][0] != shown[0]
    assert client.get(shown[1]).status_code == 404
    following = client.post("/next").json()
    assert following["episode"] == 1
    assert client.post("/next").json()["episode"] == 2
    assert client.post("/next").json()["episode"] == 0
    assert client.post("/reset").json()["film"] != following["film"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/step", '{"codes": [9]}', "from 0 to 3"),
        ("/step", '{"codes": "left"}', "list of whole numbers"),
        ("/step", "{}", "list of whole numbers"),
        ("/step", "no json", "no JSON"),
        ("/step", "[1]", "send a JSON object"),
        ("/policy", "{}", "--policy"),
        ("/policy", '{"instruction": 3}', "words are needed"),
        ("/next", '{"episode": 7}', "allowed is 0 to 2"),
        ("/next", '{"episode": "two"}', "whole number"),
    ],
)
def test_bad_requests_are_answered_with_a_reason(client, path, body, said):
    reply = client.post(path, content=body)
    assert reply.status_code == 400
    assert said in reply.json()["error"]
    assert client.get("/state").json()["played"] == []


def test_other_sites_cannot_use_the_page(client):
    assert client.get("/state", headers={"host": "elsewhere.example"}).status_code == 400


def test_the_page_asks_for_nothing_from_outside(client):
    page = client.get("/").text
    assert not re.search(r"https?://", page)
    asked = set(re.findall(r'ask\("(/\w+)"', page))
    assert asked == {"/undo", "/reset", "/next", "/step", "/policy", "/state"}


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"127.0.0.1:{port} cannot be served on.*--port"):
            listen("127.0.0.1", port)
    with pytest.raises(SetupError, match="--host"):
        listen("no.such.host.invalid", 0)


def test_the_printed_address_is_one_that_browsers_take(checkpoint, videos, monkeypatch, capsys):
    monkeypatch.setattr(run, "listen", lambda host, port: listen("127.0.0.1", port))
    monkeypatch.setattr(run, "serve", lambda application, taken: taken.close())
    main(LaqPlayConfig(checkpoint=checkpoint, data=videos, host="::1", port=0))
    address = re.search(r"http://\S+", capsys.readouterr().out).group()
    assert urlsplit(address).hostname == "::1"


def test_wrong_settings_are_refused(checkpoint, videos, tmp_path):
    base = {"checkpoint": checkpoint, "data": videos}
    with pytest.raises(ContractError, match="nothing to export"):
        LaqPlayConfig(**base, export=tmp_path / "film.mp4")
    with pytest.raises(ContractError, match="no policy"):
        LaqPlayConfig(**base, policy_steps=2)
    with pytest.raises(ContractError, match="port is 70000"):
        LaqPlayConfig(**base, port=70000)
    with pytest.raises(ActionError, match="from 0 to 3"):
        open_game(LaqPlayConfig(**base, codes="1,4"))
    with pytest.raises(DataError, match="episode is 3"):
        open_game(LaqPlayConfig(**base, episode=3))


def test_a_checkpoint_is_exported_without_a_server(checkpoint, videos, tmp_path, capsys):
    made_by = json.loads((checkpoint / "config.json").read_text())["weights_sha256"]
    main(
        LaqPlayConfig(
            checkpoint=checkpoint,
            data=videos,
            codes="0,1,2",
            policy=make_policy(tmp_path / "policy", made_by),
            policy_steps=2,
            export=tmp_path / "film.mp4",
            frame_px=64,
        )
    )
    assert "6 frames of 64 px at 2 Hz" in capsys.readouterr().out
    assert len(list(decode_frames(tmp_path / "film.mp4"))) == 6


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c(checkpoint, videos):
    command = [sys.executable, "-m", "lapa_core", "laq", "play", "--port", "0"]
    command += ["--checkpoint", str(checkpoint), "--data", str(videos)]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline()).group()
            with httpx2.Client(base_url=address, timeout=120) as client:
                assert "World model" in client.get("/").text
                assert client.post("/step", json={"codes": [2]}).json()["played"] == [[2]]
                assert client.post("/step", json={}).status_code == 400
            server.send_signal(signal.SIGINT)
            out, err = server.communicate(timeout=120)
        finally:
            server.kill()
    assert server.returncode == 0
    assert out == "stopped\n"
    assert "Traceback" not in err
