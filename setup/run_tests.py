# SPDX-License-Identifier: Apache-2.0
"""`make test`: the ROS packages through colcon, then lapa_core and the end-to-end tests through pytest.

Tests of the graph run one after the other and alone, those that talk to nobody side by side. One run has a ROS
domain of its own, on this machine only, and fails if it leaves a process behind.
"""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from lapa_core.errors import SetupError
from lapa_core.ros_env import isolated, workspace_environment
from setup import leftovers

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 20 * 60
"""A stage that takes longer than this hangs."""
WORKERS = min(os.cpu_count() or 1, 4)
"""Processes that run tests side by side; each loads torch, and many start further ones."""

COLCON, END_TO_END = "colcon test", "pytest, end to end"
RESULTS = {
    COLCON: ROOT / "ros2_ws" / "build" / "lapa_ros" / "pytest.xml",
    END_TO_END: ROOT / "build" / "end_to_end.xml",
}
"""Where the stages that need the workspace leave what they ran: colcon's of lapa_ros, and pytest's."""


class Stage(NamedTuple):
    """One command of the run."""

    name: str
    """For the summary."""

    command: list[str]
    """Program and arguments."""

    directory: Path
    """Where it runs."""


def stages() -> list[Stage]:
    """Return what the run does, in order."""
    # As a module: beside a sourced ROS 2 it may be the system's, with no program in .venv.
    workspace, colcon = ROOT / "ros2_ws", [sys.executable, "-m", "colcon"]
    test = [*colcon, "--log-level", "error", "test", "--executor", "sequential"]
    test += ["--event-handlers", "console_direct+"]
    pytest, end_to_end = [sys.executable, "-m", "pytest"], "tests/end_to_end"
    # Files in the order of the folders: the longest do not come last.
    side_by_side = ["-n", str(WORKERS), "--dist", "loadfile", "--no-loadscope-reorder"]
    return [
        Stage(COLCON, test, workspace),
        # `colcon test` succeeds when tests fail; this does not.
        Stage("colcon test-result", [*colcon, "test-result", "--verbose"], workspace),
        Stage("pytest, lapa_core", [*pytest, *side_by_side, "--ignore", end_to_end], ROOT),
        Stage(END_TO_END, [*pytest, end_to_end, f"--junit-xml={RESULTS[END_TO_END]}"], ROOT),
    ]


def run_stage(stage: Stage, environ: Mapping[str, str]) -> str | None:
    """Run one command and end what it leaves behind.

    Returns:
        What went wrong, None if nothing did.
    """
    run = uuid.uuid4().hex
    print(f"\n== {stage.name}: {' '.join(stage.command)}", flush=True)
    process = subprocess.Popen(
        stage.command, cwd=stage.directory, env={**environ, leftovers.MARK: run}
    )
    try:
        status = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        # After a hang or an interrupt nothing is worth waiting for.
        left = leftovers.end(run, grace_s=5.0 if process.poll() is not None else 0.0)
        process.wait()
    if status is None:
        return f"{stage.name} hung for {LIMIT_S / 60:.0f} minutes"
    if left:
        return f"{stage.name} left {len(left)} processes behind: {'; '.join(left.values())}"
    return f"{stage.name} failed with exit status {status}" if status else None


def check_ran(name: str, results: Path) -> str | None:
    """Return what is wrong if not one test has run: `colcon test` is content with none, pytest with all skipped."""
    if not results.is_file():
        return f"{name} wrote no {results}"
    suites = list(ElementTree.parse(results).getroot().iter("testsuite"))
    found, skipped = (sum(int(s.get(key, "0")) for s in suites) for key in ("tests", "skipped"))
    return (
        f"{name}: of {found} tests {skipped} were skipped, none ran" if found == skipped else None
    )


def main() -> None:
    """Run every stage, even after a failure, and exit with 1 if any went wrong."""
    start = time.monotonic()
    try:
        environ = isolated(workspace_environment())
    except SetupError as error:
        sys.exit(f"tests: {error}")
    environ.setdefault("ROS_LOG_DIR", str(ROOT / "ros2_ws" / "log" / "ros"))
    print(f"ROS domain {environ['ROS_DOMAIN_ID']}, this machine only")
    for results in RESULTS.values():
        results.unlink(missing_ok=True)
    wrong = [what for stage in stages() if (what := run_stage(stage, environ))]
    wrong += [none for name, results in RESULTS.items() if (none := check_ran(name, results))]
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"\nmake test: {minutes} min {seconds} s", flush=True)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
