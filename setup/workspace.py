# SPDX-License-Identifier: Apache-2.0
"""The ROS workspace: `colcon build` in ros2_ws/, when something that is built has changed."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from lapa_core.errors import SetupError
from setup import stamp

# Installed as links to the sources (`--symlink-install`), so that an edit needs no build; a new file does.
_LINKED = (".py", ".yaml", ".xacro", ".urdf")
_INSTALLED_FROM_ROOT = ("launch", "config", "urdf")


def ensure(root: Path, build_key: str, environ: Mapping[str, str]) -> None:
    """Build what has changed since the last build; from nothing when its key is another.

    Args:
        root: the clone.
        build_key: key of the paths and versions that end up in the build.
        environ: environment for colcon.

    Raises:
        SetupError: a package does not build.
    """
    workspace = root / "ros2_ws"
    built, begun = (
        workspace / "install" / "lapa-built.stamp",
        workspace / "build" / "lapa-key.stamp",
    )
    key = stamp.digest([build_key, *_sources(root)])
    if stamp.is_current(built, key):
        return
    if not stamp.is_current(begun, build_key):
        for name in ("build", "install"):
            shutil.rmtree(workspace / name, ignore_errors=True)
        begun.parent.mkdir()
        stamp.write(begun, build_key)
    python = f"{environ['VIRTUAL_ENV']}/bin/python"
    # Not its warnings: it misses a `local_setup.*` in .venv, which wheels do not have and nothing needs.
    colcon = [python, "-m", "colcon", "--log-level", "error"]
    # Packages without C++ code do not read the Python that is named: no warning about that either.
    options = ["-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={python}", "--no-warn-unused-cli"]
    command = [*colcon, "build", "--symlink-install", "--cmake-args", *options]
    print("workspace: colcon build in ros2_ws", flush=True)
    # Said here, colcon leaves out its limit by load, under which a busy machine builds one file at a time.
    environ = {**environ, "MAKEFLAGS": f"-j{os.cpu_count()}"}
    if subprocess.run(command, cwd=workspace, env=environ).returncode:
        raise SetupError(f"colcon build failed (its reason is above and in {workspace / 'log'})")
    stamp.write(built, key)


def _sources(root: Path) -> Iterator[str | bytes]:
    """Yield name and, where it is built rather than linked, content of every source file."""
    for folder, directories, files in os.walk(root / "ros2_ws" / "src"):
        # Not followed: links to folders, which are what `--symlink-install` links to as well.
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for path in sorted(Path(folder, name) for name in [*files, *directories]):
            yield str(path.relative_to(root))
            if path.is_file() and (path.name == "setup.py" or path.suffix not in _LINKED):
                yield path.read_bytes()
    for name in _INSTALLED_FROM_ROOT:
        yield from sorted(str(path.relative_to(root)) for path in (root / name).rglob("*.*"))
