# SPDX-License-Identifier: Apache-2.0
import os
import socket
import subprocess
import sys

import pytest

from lapa_core.errors import SetupError
from lapa_core.ros_env import (
    WHEELS_MARK,
    enter_workspace,
    free_domain_id,
    isolated,
    workspace_environment,
)


@pytest.fixture(autouse=True)
def some_rclpy(tmp_path, monkeypatch):
    """ROS 2 is importable, as on a set-up machine; only its presence matters here."""
    (tmp_path / "ros" / "rclpy").mkdir(parents=True)
    (tmp_path / "ros" / "rclpy" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "ros"))


@pytest.fixture
def install(tmp_path):
    """An isolated colcon install folder with one package, and one that is linked (`--symlink-install`)."""
    folder = tmp_path / "install"
    _package(folder / "messages", "messages", ["PYTHONPATH;python", "LD_LIBRARY_PATH;lib"])
    linked = tmp_path / "build" / "nodes"
    linked.mkdir(parents=True)
    _package(folder / "nodes", "nodes", [f"PYTHONPATH;{linked}"])
    return folder


def _package(prefix, name, entries):
    """Lay out the files as colcon and ament do: each names the next, once per shell."""
    share = prefix / "share" / name
    for directory in (prefix / "python", prefix / "lib", share / "hook", share / "environment"):
        directory.mkdir(parents=True)
    (prefix / "share/colcon-core/packages").mkdir(parents=True)
    (prefix / "share/colcon-core/packages" / name).touch()
    hook, setup = f"share/{name}/hook/paths", f"share/{name}/local_setup"
    shells = [f"source;{file}.{kind}" for file in (hook, setup) for kind in ("ps1", "dsv", "sh")]
    (share / "package.dsv").write_text("\n".join(shells) + "\n")
    lines = [f"prepend-non-duplicate;{entry}" for entry in entries]
    lines.append("prepend-non-duplicate-if-exists;PATH;absent")
    (prefix / f"{hook}.dsv").write_text("\n".join(lines) + "\n")
    (prefix / f"{setup}.dsv").write_text(f"source;share/{name}/environment/ament.sh\n")
    (share / "environment/ament.dsv").write_text("prepend-non-duplicate;AMENT_PREFIX_PATH;\n")


def test_every_package_comes_before_what_was_there(install, tmp_path):
    before = {"PYTHONPATH": "/mine", "PATH": "/usr/bin", "HOME": "/home/someone"}
    environ = workspace_environment(install, before)
    assert environ["PYTHONPATH"].split(":") == [
        str(tmp_path / "build" / "nodes"),
        str(install / "messages" / "python"),
        "/mine",
    ]
    assert environ["LD_LIBRARY_PATH"].split(":") == [str(install / "messages" / "lib")]
    assert environ["PATH"] == "/usr/bin", "no entry for a directory that does not exist"
    assert {str(install / "messages"), str(install / "nodes")} <= set(
        environ["AMENT_PREFIX_PATH"].split(":")
    )
    assert environ["HOME"] == "/home/someone"


def test_twice_is_once(install):
    once = workspace_environment(install, {})
    assert workspace_environment(install, once) == once


def test_a_merged_install(tmp_path):
    _package(tmp_path / "install", "messages", ["PYTHONPATH;python"])
    environ = workspace_environment(tmp_path / "install", {})
    assert environ["PYTHONPATH"] == str(tmp_path / "install" / "python")


def test_a_child_finds_the_libraries_of_the_wheels_itself(install):
    assert WHEELS_MARK not in workspace_environment(install, {WHEELS_MARK: "1"})


@pytest.mark.parametrize("wheels", [True, False])
def test_the_environment_is_an_ament_prefix_when_it_holds_the_wheels(
    install, tmp_path, monkeypatch, wheels
):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    if wheels:
        (tmp_path / "venv" / "share" / "ament_index").mkdir(parents=True)
    prefixes = workspace_environment(install, {})["AMENT_PREFIX_PATH"].split(":")
    assert (str(tmp_path / "venv") in prefixes) is wheels


def test_an_overlay_that_a_user_has_sourced_wins(install, tmp_path):
    (tmp_path / "overlay" / "share" / "lapa_ros").mkdir(parents=True)
    sourced = {"AMENT_PREFIX_PATH": str(tmp_path / "overlay"), "PYTHONPATH": "/theirs"}
    assert workspace_environment(install, sourced) == sourced


def test_a_workspace_that_is_not_built(tmp_path):
    with pytest.raises(SetupError, match="make setup"):
        workspace_environment(tmp_path, {})


def test_no_ros_at_all(install, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(
        sys, "meta_path", [each for each in sys.meta_path if isinstance(each, type)]
    )
    monkeypatch.delitem(sys.modules, "rclpy", raising=False)
    with pytest.raises(SetupError, match=r"rclpy cannot be imported.*make setup"):
        workspace_environment(install, {})


def test_a_command_starts_again_inside_the_workspace_once(install, tmp_path):
    (install / "nodes" / "share" / "lapa_ros").mkdir()
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, sys\n"
        "from lapa_core.ros_env import enter_workspace\n"
        "print('started', flush=True)\n"
        f"enter_workspace(pathlib.Path({str(install)!r}))\n"
        "print(sys.argv[1], *os.environ['LD_LIBRARY_PATH'].split(os.pathsep))\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "AMENT_PREFIX_PATH"}
    environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "ros"), *filter(None, sys.path)])
    command = [sys.executable, str(program), "argument"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    *starts, last = result.stdout.splitlines()
    assert starts == ["started", "started"]
    # In any order: the ROS 2 wheels add their own at start-up.
    assert {"argument", str(install / "messages" / "lib")} <= set(last.split())


def test_a_workspace_without_the_nodes_cannot_be_entered(install, monkeypatch):
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    with pytest.raises(SetupError, match="does not hold lapa_ros"):
        enter_workspace(install)


def test_a_domain_with_a_participant_is_not_free(monkeypatch):
    monkeypatch.setattr("random.sample", lambda population, count: [7, 8])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("", 7400 + 250 * 7))
        assert free_domain_id() == 8
    assert free_domain_id() == 7


def test_isolation_keeps_the_graph_on_this_machine():
    environ = isolated({"ROS_DOMAIN_ID": "0"})
    assert 1 <= int(environ["ROS_DOMAIN_ID"]) <= 100
    assert environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert isolated({"ROS_DISTRO": "humble"})["ROS_LOCALHOST_ONLY"] == "1"
