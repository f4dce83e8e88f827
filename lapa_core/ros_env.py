# SPDX-License-Identifier: Apache-2.0
"""The environment that a process of the ROS graph needs, without a sourced shell.

`colcon build` describes each package's part of it in small `.dsv` files; this module applies them, so that
`lapa up` and the tests start nodes from a plain `.venv/bin/lapa`. Standard library only.
"""

import os
import random
import socket
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from lapa_core.errors import SetupError

WORKSPACE_INSTALL = Path(__file__).resolve().parent.parent / "ros2_ws" / "install"
"""Where `make setup` installs the workspace."""

WHEELS_MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
"""Set by the ROS 2 wheels once `LD_LIBRARY_PATH` names their libraries; without it they do that at start-up."""


def workspace_environment(
    install: Path = WORKSPACE_INSTALL, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the whole environment for a child process that uses the workspace.

    An environment in which a workspace with `lapa_ros` is already sourced is returned unchanged, so that a
    user's own overlay wins. In every other case the packages under `install` come first.

    Args:
        install: colcon's install folder, isolated (the default) or merged.
        environ: what to start from; this process's environment when absent.

    Raises:
        SetupError: the workspace is not built, or no `rclpy` can be imported.
    """
    result = dict(os.environ if environ is None else environ)
    if find_spec("rclpy") is None:
        raise SetupError(
            "rclpy cannot be imported; source a ROS 2 installation (jazzy or humble), "
            "or run `make setup`, which installs ROS 2 from wheels into .venv, and use .venv/bin/lapa"
        )
    # A child that inherits the mark but other libraries could not import rclpy; it finds them itself.
    result.pop(WHEELS_MARK, None)
    if _is_sourced(result):
        return result
    prefixes = _package_prefixes(install)
    if not prefixes:
        raise SetupError(
            f"no built package in {install}; run `make setup`, which builds the workspace"
        )
    # The wheels have no setup file that would do this; a sourced installation has done it.
    if Path(sys.prefix, "share", "ament_index").is_dir():
        _prepend(result, "AMENT_PREFIX_PATH", sys.prefix)
    for prefix in prefixes:
        for variable, entry in _entries(prefix):
            _prepend(result, variable, entry)
    return result


def enter_workspace(install: Path = WORKSPACE_INSTALL) -> None:
    """Start this process again inside the workspace's environment; return at once if it is there already.

    For commands that import `lapa_ros` or `lapa_msgs` themselves: the libraries of a message package are only
    found through variables that are set before the interpreter starts.

    Raises:
        SetupError: as `workspace_environment` does.
    """
    environ = workspace_environment(install)
    if _is_sourced(os.environ):
        return
    if not _is_sourced(environ):
        raise SetupError(f"{install} does not hold lapa_ros; run `make setup`, which builds it")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, sys.orig_argv, environ)


def _is_sourced(environ: Mapping[str, str]) -> bool:
    prefixes = environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return any(prefix and (Path(prefix) / "share" / "lapa_ros").is_dir() for prefix in prefixes)


def _package_prefixes(install: Path) -> list[Path]:
    marker = Path("share", "colcon-core", "packages")
    if (install / marker).is_dir():
        return [install]
    return sorted(path.parents[2] for path in install.glob(f"*/{marker}"))


def _entries(prefix: Path) -> Iterator[tuple[str, str]]:
    """Yield (variable, directory) of every path that the packages under one prefix add."""
    for package in sorted((prefix / "share" / "colcon-core" / "packages").iterdir()):
        yield from _read_dsv(prefix, prefix / "share" / package.name / "package.dsv")


def _read_dsv(prefix: Path, dsv: Path) -> Iterator[tuple[str, str]]:
    """Yield the paths that one `.dsv` file adds, and those of the files that it names."""
    for line in dsv.read_text(encoding="utf-8").splitlines():
        kind, _, rest = line.partition(";")
        if kind == "source":
            # Each shell's script is named; where there is one, the `.dsv` beside it says the same.
            named = (prefix / rest).with_suffix(".dsv")
            if rest.endswith((".dsv", ".sh")) and named.is_file():
                yield from _read_dsv(prefix, named)
        elif kind.startswith("prepend-non-duplicate"):
            variable, _, relative = rest.partition(";")
            # An absolute path, as an editable package has it, replaces the prefix.
            entry = prefix / relative
            if entry.is_dir():
                yield variable, str(entry)


def _prepend(environ: dict[str, str], variable: str, entry: str) -> None:
    present = [part for part in environ.get(variable, "").split(os.pathsep) if part]
    if entry not in present:
        environ[variable] = os.pathsep.join([entry, *present])


def isolated(environ: Mapping[str, str]) -> dict[str, str]:
    """Return a copy whose ROS graph is seen by nobody else: a free domain, on this machine only."""
    result = dict(environ)
    result["ROS_DOMAIN_ID"] = str(free_domain_id())
    if result.get("ROS_DISTRO") == "humble":
        result["ROS_LOCALHOST_ONLY"] = "1"
    else:
        result["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    return result


def free_domain_id() -> int:
    """Return a ROS domain from 1 to 100 in which no participant of this machine is.

    Raises:
        SetupError: all are taken.
    """
    for domain in random.sample(range(1, 101), 100):
        if _is_free(domain):
            return domain
    raise SetupError("all ROS domains from 1 to 100 are in use on this machine; stop some nodes")


def _is_free(domain: int) -> bool:
    """Return whether the domain's discovery port, and that of its first participant, can be bound."""
    # DDS fixes these: 7400 + 250 per domain for discovery by multicast, 10 more for the first unicast port.
    for port in (7400 + 250 * domain, 7410 + 250 * domain):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True
