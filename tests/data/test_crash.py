# SPDX-License-Identifier: Apache-2.0
"""A writer killed at any moment leaves every saved episode readable, and can be resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lapa_core.data.lerobot import LeRobotSource, LeRobotWriter
from lapa_core.data.lerobot_format import INFO_PATH, make_features
from lapa_core.data.verify import verify

WRITER = """
import sys
import numpy as np
from lapa_core.data.lerobot import LeRobotWriter
from lapa_core.data.lerobot_format import make_features

writer = LeRobotWriter(sys.argv[1], fps=5, features=make_features({"front": (32, 32)}))
for number in range(10_000):
    frames = np.full((4, 32, 32, 3), number % 250, np.uint8)
    writer.add_episode({"front": frames}, instruction=f"task {number % 3}")
    print(number, flush=True)
"""


def kill_after(path, episodes, delay_s):
    """Start a writer, let it save some episodes, kill it a little later; return the last it reported."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    with process:
        for line in process.stdout:
            if int(line) + 1 >= episodes:
                break
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
    return int(rest[-1]) if rest else int(line)


@pytest.mark.parametrize("delay_s", [0.0, 0.004, 0.009, 0.015])
def test_killed_writer_loses_nothing_that_was_saved(tmp_path, delay_s):
    path = tmp_path / "set"
    last = kill_after(path, 3, delay_s)
    source = LeRobotSource(path)
    assert len(source) in (last + 1, last + 2)  # saved, but killed before it could say so
    for index in range(len(source)):
        assert abs(int(source.episode(index).frames.mean()) - index) <= 3
    count = len(source)

    writer = LeRobotWriter(path, fps=5, features=make_features({"front": (32, 32)}))
    assert writer.num_episodes == count
    assert verify(path).problems == ()  # what was half written is gone
    writer.add_episode({"front": np.full((4, 32, 32, 3), 200, np.uint8)}, instruction="new")
    assert verify(path).problems == ()
    assert LeRobotSource(path).instruction(count) == "new"


def test_killed_between_the_statistics_and_the_count(tmp_path):
    path, features = tmp_path / "set", make_features({"front": (32, 32)})
    writer = LeRobotWriter(path, fps=5, features=features)
    writer.add_episode({"front": np.full((4, 32, 32, 3), 50, np.uint8)}, instruction="one")
    counted = (path / INFO_PATH).read_bytes()
    writer.add_episode({"front": np.full((4, 32, 32, 3), 90, np.uint8)}, instruction="two")
    (path / INFO_PATH).write_bytes(counted)

    LeRobotWriter(path, fps=5, features=features)

    assert verify(path).problems == ()
