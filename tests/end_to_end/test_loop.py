# SPDX-License-Identifier: Apache-2.0
"""Record, export, finetune two steps, drive the simulated arm: separate processes over real DDS."""

from __future__ import annotations

import json
import re
import threading
import time

import numpy as np
import pytest

from lapa_core.data.episode import open_source
from lapa_core.graph import load_graph
from lapa_core.ros_env import isolated, workspace_environment
from lapa_core.sim.env import TabletopEnv
from lapa_core.supervisor import Supervisor
from lapa_core.up import process_plans
from tests.end_to_end.nodes import Log, lapa

pytestmark = [pytest.mark.ros, pytest.mark.slow]
SEED = 600_000
MEAN_DIFFERENCE = 4.0
"""Grey levels: JPEG and H.264 cost two; one block elsewhere costs two or three more."""
SAID_S = 10.0
"""Within this time of a node's death the others have said what is missing [s]."""


@pytest.fixture(scope="module")
def environ():
    return isolated(workspace_environment())


@pytest.fixture(scope="module")
def folder(tmp_path_factory, environ):
    """Two episodes through the recorder in `mcap/`, exported and verified in `labels/`."""
    folder = tmp_path_factory.mktemp("loop")
    where = f"folder:={folder / 'mcap'}"
    lapa("up", "record", "--set", "episodes:=2", f"seed:={SEED}", where, environ=environ)
    assert len(list((folder / "mcap").glob("*.mcap"))) == 2
    lapa(
        "data",
        "export",
        "--recordings",
        folder / "mcap",
        "--out",
        folder / "labels",
        environ=environ,
    )
    lapa("data", "doctor", "--path", folder / "labels", environ=environ)
    return folder


@pytest.fixture(scope="module")
def policy(folder, environ):
    """A policy finetuned on the two episodes for two steps."""
    sizes = ("--steps", 2, "--head-steps", 1, "--model.width", 8, "--model.blocks", 1)
    where = ("--data", folder / "labels", "--out", folder / "run", "--init", "None")
    lapa("vla", "finetune", "debug", *where, *sizes, environ=environ)
    return folder / "run" / "checkpoint"


def test_a_recording_shows_what_the_gymnasium_environment_shows_for_the_same_actions(folder):
    """Offline is live: same scene for the same seed, same frames along the same deltas."""
    source = open_source(folder / "labels")
    assert len(source) == 2
    env = TabletopEnv()
    for index in range(2):
        episode = source.episode(index, image_px=64)
        observation, _ = env.reset(seed=SEED + index)
        assert observation["instruction"] == episode.instruction
        for frame, action in zip(episode.frames, episode.actions, strict=True):
            difference = np.abs(frame.astype(int) - observation["image"])
            assert difference.mean() < MEAN_DIFFERENCE
            observation, *_, info = env.step(action)
            assert info["refused"] == 0
    env.close()


def test_the_demo_closes_the_loop_and_writes_its_figures(policy, environ, tmp_path):
    out = tmp_path / "demo"
    output = lapa("demo", "--episodes", 1, "--checkpoint", policy, "--out", out, environ=environ)
    figures = json.loads((out / "summary.json").read_text())
    assert figures["episodes"] == 1
    assert figures["applied"] > 0
    assert 0.0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"] < 1000.0
    assert figures["problem"] == ""
    assert set(figures) >= {"successes", "refused", "families"}
    assert "observation to command" in output
    for name in ("episodes.mp4", "contact_sheet.png"):
        assert (out / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("victim", "words"),
    [
        ("policy", ["arm: .*holding: no command", "evaluate: .*policy node has been silent"]),
        ("arm", ["sim: .*holding the measured joints", "policy: .*arm node is silent"]),
        ("sim", ["arm: .*joint states are missing", "policy: .*not acting"]),
    ],
)
def test_when_a_node_is_killed_the_arm_holds_and_the_others_say_why(
    policy, environ, tmp_path, victim, words
):
    graph = load_graph("evaluate")
    values = graph.values(
        {"checkpoint": str(policy), "out": str(tmp_path / "out"), "episodes": "5"}
    )
    log, interrupted, status = Log(), threading.Event(), []
    environ = {**environ, "PYTHONUNBUFFERED": "1"}
    with Supervisor(process_plans(graph, values, environ), environ, log) as supervisor:
        waiter = threading.Thread(target=lambda: status.append(supervisor.wait(interrupted)))
        waiter.start()
        log.wait_for("tracking: following policy")
        killed_s = time.monotonic()
        supervisor.kill(victim)
        log.wait_for(f"lapa: {victim} has died (signal SIGKILL)")
        waiter.join(60.0)
        interrupted.set()
    assert status == [1], "an evaluation whose loop broke ends with an error"
    came = zip(log.came_s, log.lines, strict=True)
    later = [(at_s - killed_s, line) for at_s, line in came if at_s > killed_s]
    for pattern in words:
        took_s = next((after_s for after_s, line in later if re.search(pattern, line)), None)
        assert took_s is not None, f"{pattern!r} in:\n" + "\n".join(line for _, line in later)
        print(f"{victim} killed: {pattern!r} after {took_s:.2f} s")
        assert took_s < SAID_S
