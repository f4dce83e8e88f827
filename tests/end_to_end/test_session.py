# SPDX-License-Identifier: Apache-2.0
"""From a session file to a finetuned checkpoint, with a crash in the middle; a scripted operator, over real DDS."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter

import pytest

from lapa_core.graph import load_graph
from lapa_core.ros_env import isolated, workspace_environment
from lapa_core.supervisor import Supervisor
from lapa_core.up import process_plans
from tests.end_to_end.nodes import Log, lapa

pytestmark = [pytest.mark.ros, pytest.mark.slow]
EPISODES = int(os.environ.get("LAPA_SESSION_EPISODES", "2"))
"""Episodes of each of the three tasks; 10 make the session of 30."""
SESSION = f"""
name: three tasks
order: in_turn
seed: 710000
tasks:
  push:
    episodes: {EPISODES}
    instructions: [push the red block left, slide the red block to the left]
  point:
    episodes: {EPISODES}
    instructions: [point to the blue block]
  push_next_to:
    episodes: {EPISODES}
    instructions: [push the green block to the yellow block]
"""


def wait_for_half_an_episode(folder):
    """Return when an open episode has been synced: what is not on the disk yet is lost with a kill."""
    end_s = time.monotonic() + 40.0
    while time.monotonic() < end_s:
        with contextlib.suppress(FileNotFoundError):  # it was finished meanwhile
            if any(part.stat().st_size > 20_000 for part in folder.glob("*.mcap.part")):
                return
        time.sleep(0.02)
    raise AssertionError(f"no open episode in {list(folder.iterdir())}")


def test_a_session_with_a_crash_becomes_a_policy(tmp_path):
    from lapa_ros.session_logic import SessionProgress, read_metadata
    from lapa_ros.session_plan import load_session

    environ = {**isolated(workspace_environment()), "PYTHONUNBUFFERED": "1"}
    (tmp_path / "session.yaml").write_text(SESSION)
    given = {"session": str(tmp_path / "session.yaml"), "folder": str(tmp_path / "mcap")}
    graph, log = load_graph("session"), Log()
    plans = process_plans(graph, graph.values(given), environ)
    with Supervisor(plans, environ, log) as supervisor:
        log.wait_for("[session]: kept ep_")
        wait_for_half_an_episode(tmp_path / "mcap")
        for victim in ("recorder", "session"):  # in the middle of an episode
            supervisor.kill(victim)
    assert list((tmp_path / "mcap").glob("*.mcap.part")), "the episode that the crash cut short"

    lapa("up", "session", "--set", *[f"{k}:={v}" for k, v in given.items()], environ=environ)
    plan = load_session(given["session"])
    progress = SessionProgress(plan, tmp_path / "mcap")
    assert (progress.next_slot(), progress.num_kept) == (None, 3 * EPISODES)
    outcomes = Counter(read_metadata(p)["outcome"] for p in (tmp_path / "mcap").glob("*.mcap"))
    assert outcomes["success"] >= 3 * EPISODES
    assert sum(outcomes.values()) > outcomes["success"], (
        "the rescued one lies there and does not count"
    )

    where = ("--recordings", tmp_path / "mcap", "--out", tmp_path / "labels")
    lapa("data", "export", *where, environ=environ)
    lapa("data", "doctor", "--path", tmp_path / "labels", environ=environ)
    info = json.loads((tmp_path / "labels" / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 3 * EPISODES
    sizes = ("--steps", 2, "--head-steps", 1, "--model.width", 8, "--model.blocks", 1)
    data = ("--data", tmp_path / "labels", "--out", tmp_path / "run", "--init", "None")
    lapa("vla", "finetune", "debug", *data, *sizes, environ=environ)
    assert (tmp_path / "run" / "checkpoint" / "config.json").is_file()
