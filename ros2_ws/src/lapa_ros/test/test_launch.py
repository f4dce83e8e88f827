# SPDX-License-Identifier: Apache-2.0
"""Each launch file, imported with the real `launch` where that is installed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lapa_core.graph import load_graphs
from lapa_core.paths import config_dir

LAUNCH_DIR = config_dir().parent / "launch"


def test_every_graph_has_its_launch_file():
    assert {path.name for path in LAUNCH_DIR.glob("*.py")} == {
        f"{name}.launch.py" for name in load_graphs()
    }


@pytest.mark.parametrize("name", load_graphs())
def test_launch_file_describes_its_graph(name):
    pytest.importorskip(
        "launch_ros", reason="no launch_ros here: it comes with a ROS 2 installation, not from PyPI"
    )
    from launch.actions import DeclareLaunchArgument
    from launch.launch_description_sources import get_launch_description_from_python_launch_file
    from launch_ros.actions import Node

    graph = load_graphs()[name]
    entities = get_launch_description_from_python_launch_file(
        str(Path(LAUNCH_DIR, f"{name}.launch.py"))
    ).entities
    arguments = [entity for entity in entities if isinstance(entity, DeclareLaunchArgument)]
    assert [argument.name for argument in arguments] == list(graph.arguments)
    assert all(argument.description for argument in arguments)
    nodes = [entity for entity in entities if isinstance(entity, Node)]
    assert [node.node_executable for node in nodes] == [node.executable for node in graph.nodes]


@pytest.mark.parametrize("given", ["", "/home/o'brien/my params.yaml"])
def test_a_parameter_file_of_any_name_comes_after_the_nodes_own(given):
    """Regression pinned: a quote in the path was read as Python."""
    pytest.importorskip(
        "launch_ros", reason="no launch_ros here: it comes with a ROS 2 installation, not from PyPI"
    )
    from lapa_ros.launching import FirstGiven
    from launch.substitutions import LaunchConfiguration, TextSubstitution

    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations["params_file"] = given
    file = FirstGiven(LaunchConfiguration("params_file"), TextSubstitution(text="/own.yaml"))
    assert file.perform(context) == (given or "/own.yaml")


ROS2 = [sys.executable, "-c", "import sys; from ros2cli.cli import main; sys.exit(main())"]


@pytest.mark.parametrize(
    ("episodes", "status", "words"),
    [("0", 1, "has ended with exit status 2"), ("1", 0, "was required: shutting down")],
)
def test_ros2_launch_ends_with_the_node_that_ends_the_graph(tmp_path, episodes, status, words):
    """Zero episodes are out of the parameter's bounds, so that the node that ends the graph ends with 2."""
    pytest.importorskip("ros2launch", reason="no `ros2 launch` here: it is not on PyPI")
    arguments = [f"episodes:={episodes}", "folder:=on"]  # which YAML would take for a truth value
    done = subprocess.run(
        [*ROS2, "launch", "lapa_bringup", "record.launch.py", *arguments],
        cwd=tmp_path, timeout=120, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == status, done.stdout
    assert words in done.stdout
    assert len(list(tmp_path.glob("on/*.mcap"))) == int(episodes)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_the_nodes_of_a_ros2_launch_that_is_gone_end(tmp_path, how):
    """Regression pinned: they went on, an arm node among them, and nobody was left to stop them."""
    pytest.importorskip("ros2launch", reason="no `ros2 launch` here: it is not on PyPI")
    command = [*ROS2, "launch", "lapa_bringup", "policy.launch.py"]
    log = tmp_path / "log"
    with log.open("w") as file, subprocess.Popen(
        command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "ROS_LOG_DIR": str(tmp_path)}
    ) as launch:  # fmt: skip
        _wait_until(lambda: "joint states arrive" in log.read_text(), 60.0)
        nodes = [
            int(pid) for pid in re.findall(r"process started with pid \[(\d+)\]", log.read_text())
        ]
        assert len(nodes) == 3
        launch.send_signal(how)
        launch.wait(10.0)
    try:
        # The policy node may load its checkpoint still, and looks when it has.
        _wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in nodes), 60.0)
    finally:
        for pid in nodes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _wait_until(condition, limit_s):
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, f"waited {limit_s} s"
        time.sleep(0.05)
