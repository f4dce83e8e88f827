# SPDX-License-Identifier: Apache-2.0
"""The virtual environment `.venv`: created, filled from the lock, and its ROS 2 wheels repaired."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lapa_core.errors import SetupError
from setup import stamp
from setup.underlay import Underlay

# What a sourced ROS 2 brings in the version that its code generators need; the lock's would hide it.
_PROVIDED_BY_ROS = ("empy==",)


def ensure(root: Path, underlay: Underlay, environ: Mapping[str, str]) -> None:
    """Make `root/.venv` hold exactly what the lock says, unless it does already.

    Args:
        root: the clone.
        underlay: decides on the ROS 2 wheels and on the system's packages.
        environ: environment for pip.

    Raises:
        SetupError: pip failed.
    """
    venv = root / ".venv"
    if not _fits(venv, underlay):
        print(f"virtual environment: {venv} on Python {_version()}, {underlay}", flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        options = ["--system-site-packages"] if underlay.sourced else []
        subprocess.run([sys.executable, "-m", "venv", *options, str(venv)], check=True)
    _install_requirements(root, underlay, environ)
    _install_project(root, environ)


def build_key(root: Path, underlay: Underlay) -> str:
    """Return a key of all that ends up in a build of the workspace: paths and versions."""
    built_in = ("ros-", "numpy==", "setuptools==", "empy==")
    lines = [
        line for line in _constraints(root, underlay).splitlines() if line.startswith(built_in)
    ]
    return stamp.digest([str(root), _version(), str(underlay), *lines])


def _install_requirements(root: Path, underlay: Underlay, environ: Mapping[str, str]) -> None:
    venv = root / ".venv"
    done, constraints = venv / "lapa-requirements.stamp", venv / "lapa-constraints.txt"
    key = _requirements_key(root, underlay)
    if stamp.is_current(done, key):
        return
    print("requirements: the versions of setup/requirements/lock.txt", flush=True)
    constraints.write_text(_constraints(root, underlay), encoding="utf-8")
    groups = [f"-r{path}" for path in _groups(root, underlay)]
    _pip(venv, environ, *groups, "-c", str(constraints))
    if not underlay.sourced:
        python = str(venv / "bin" / "python")
        subprocess.run([python, "-m", "setup.fix_wheels"], cwd=root, env=environ, check=True)
    stamp.write(done, key)


def _install_project(root: Path, environ: Mapping[str, str]) -> None:
    """Install `lapa_core` as a link to the sources, and the program `lapa`."""
    venv = root / ".venv"
    done, key = venv / "lapa-project.stamp", stamp.digest([(root / "pyproject.toml").read_bytes()])
    if not stamp.is_current(done, key):
        # The build tools are the lock's: without isolation nothing more is fetched.
        _pip(venv, environ, "--no-deps", "--no-build-isolation", "-e", str(root))
        stamp.write(done, key)


def _groups(root: Path, underlay: Underlay) -> list[Path]:
    names = ["core", "dev"] if underlay.sourced else ["core", "dev", "ros"]
    return [root / "setup" / "requirements" / f"{name}.in" for name in names]


def _constraints(root: Path, underlay: Underlay) -> str:
    lines = (root / "setup" / "requirements" / "lock.txt").read_text(encoding="utf-8").splitlines()
    if underlay.sourced:
        lines = [line for line in lines if not line.startswith(_PROVIDED_BY_ROS)]
    return "\n".join(lines) + "\n"


def _requirements_key(root: Path, underlay: Underlay) -> str:
    files = [*_groups(root, underlay), root / "setup" / "fix_wheels.py"]
    return stamp.digest(
        [str(root), _version(), str(underlay), _constraints(root, underlay)]
        + [path.read_text(encoding="utf-8") for path in files]
    )


def _version() -> str:
    # Not the third number: an update of the system's Python keeps its environments.
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _fits(venv: Path, underlay: Underlay) -> bool:
    """Return whether `venv` is whole, in its own place, of this Python, and sees the system as it should."""
    configuration = venv / "pyvenv.cfg"
    script = venv / "bin" / "pip"
    if not (configuration.is_file() and script.is_file() and (venv / "bin" / "python").exists()):
        return False
    pairs = (line.partition("=") for line in configuration.read_text(encoding="utf-8").splitlines())
    values = {name.strip(): value.strip() for name, _, value in pairs}
    # A moved environment still has scripts that start the interpreter of its old place.
    in_place = f"{venv}/bin/python" in script.read_text(encoding="utf-8")
    sees_system = values.get("include-system-site-packages") == "true"
    same_python = values.get("version", "").startswith(f"{_version()}.")
    return in_place and same_python and sees_system == underlay.sourced


def _pip(venv: Path, environ: Mapping[str, str], *arguments: str) -> None:
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    command += ["--disable-pip-version-check", *arguments]
    if subprocess.run(command, env=environ).returncode:
        raise SetupError(f"pip failed (its reason is above): {' '.join(command)}")
