# SPDX-License-Identifier: Apache-2.0
"""Which ROS 2 the workspace is built on: a sourced installation, or the wheels in `.venv`."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lapa_core.errors import SetupError
from lapa_core.ros_env import WHEELS_MARK

SUPPORTED = ("humble", "jazzy")
"""Distributions that the workspace supports."""


@dataclass(frozen=True, kw_only=True)
class Underlay:
    """The ROS 2 below the workspace."""

    distribution: str
    """`humble` or `jazzy`."""

    sourced: bool
    """True: an installation that the shell has sourced. False: wheels from PyPI."""

    def __str__(self) -> str:
        return f"ROS 2 {self.distribution} ({'sourced' if self.sourced else 'wheels'})"


def detect(environ: Mapping[str, str]) -> Underlay:
    """Return the underlay that this environment asks for.

    Raises:
        SetupError: a distribution is sourced that the workspace does not support.
    """
    distribution = environ.get("ROS_DISTRO", "")
    if not distribution or not environ.get("AMENT_PREFIX_PATH"):
        return Underlay(distribution="jazzy", sourced=False)
    if distribution not in SUPPORTED:
        raise SetupError(
            f"ROS_DISTRO={distribution} is sourced; supported are {', '.join(SUPPORTED)}. "
            "Source one of those, or use a shell without ROS to get ROS 2 from wheels"
        )
    return Underlay(distribution=distribution, sourced=True)


def check_importable(python: str, underlay: Underlay) -> None:
    """Check that this Python sees the sourced installation.

    Raises:
        SetupError: it does not, as with a Python that is not the system's.
    """
    if not underlay.sourced:
        return
    if subprocess.run([python, "-c", "import rclpy"], capture_output=True).returncode:
        raise SetupError(
            f"{underlay} but {python} cannot import rclpy; name the Python that it was built for: "
            "make ... PYTHON=/usr/bin/python3"
        )


def build_environment(environ: Mapping[str, str], underlay: Underlay, venv: Path) -> dict[str, str]:
    """Return the environment for pip and colcon: the virtual environment first, then the underlay."""
    result = dict(environ)
    result.pop(WHEELS_MARK, None)
    result.pop("PYTHONHOME", None)
    result["VIRTUAL_ENV"] = str(venv)
    result["PATH"] = f"{venv / 'bin'}:{environ.get('PATH', '')}"
    if not underlay.sourced:
        result.pop("PYTHONPATH", None)
        result["AMENT_PREFIX_PATH"] = result["CMAKE_PREFIX_PATH"] = str(venv)
    return result
