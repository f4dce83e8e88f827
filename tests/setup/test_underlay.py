# SPDX-License-Identifier: Apache-2.0
import sys
from pathlib import Path

import pytest

from lapa_core.errors import SetupError
from lapa_core.ros_env import WHEELS_MARK
from setup.underlay import Underlay, build_environment, check_importable, detect

WHEELS = Underlay(distribution="jazzy", sourced=False)
JAZZY = Underlay(distribution="jazzy", sourced=True)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, WHEELS),
        ({"AMENT_PREFIX_PATH": "/somewhere"}, WHEELS),
        ({"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": "/ros/jazzy"}, JAZZY),
        (
            {"ROS_DISTRO": "humble", "AMENT_PREFIX_PATH": "/ros/humble"},
            Underlay(distribution="humble", sourced=True),
        ),
    ],
)
def test_detect(environ, expected):
    assert detect(environ) == expected


def test_an_unsupported_distribution_names_the_supported_ones():
    with pytest.raises(SetupError, match=r"ROS_DISTRO=foxy .* humble, jazzy"):
        detect({"ROS_DISTRO": "foxy", "AMENT_PREFIX_PATH": "/ros/foxy"})


def test_a_python_that_does_not_see_the_sourced_installation(tmp_path):
    bare = tmp_path / "python3"
    # -I -S: no site-packages and no environment, hence no rclpy, whatever this machine has.
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(SetupError, match="cannot import rclpy"):
        check_importable(str(bare), JAZZY)
    check_importable(str(bare), WHEELS)


def test_wheels_hide_what_another_workspace_left_in_the_shell():
    shell = {
        "PATH": "/usr/bin",
        "PYTHONPATH": "/old",
        "AMENT_PREFIX_PATH": "/old",
        WHEELS_MARK: "1",
    }
    environ = build_environment(shell, WHEELS, Path("/clone/.venv"))
    assert environ["PATH"].startswith("/clone/.venv/bin:")
    assert environ["AMENT_PREFIX_PATH"] == environ["CMAKE_PREFIX_PATH"] == "/clone/.venv"
    assert "PYTHONPATH" not in environ
    assert WHEELS_MARK not in environ


def test_a_sourced_installation_stays():
    shell = {"PATH": "/usr/bin", "PYTHONPATH": "/ros/p", "AMENT_PREFIX_PATH": "/ros/jazzy"}
    environ = build_environment(shell, JAZZY, Path("/clone/.venv"))
    assert environ["PYTHONPATH"] == "/ros/p"
    assert environ["AMENT_PREFIX_PATH"] == "/ros/jazzy"
