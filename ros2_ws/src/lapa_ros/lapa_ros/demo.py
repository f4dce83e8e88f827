# SPDX-License-Identifier: Apache-2.0
"""`lapa demo`: the whole loop in simulation, as separate processes over DDS.

Starts the graph `evaluate` of config/graph.yaml as `lapa up` does, in a ROS domain of its own, and shows the
evaluation's report; of the other nodes only warnings and errors. Everything is in the log folder.
"""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import dataclass, fields
from pathlib import Path

from lapa_core.errors import ContractError
from lapa_core.graph import load_graph
from lapa_core.ros_env import isolated, workspace_environment
from lapa_core.supervisor import Supervisor
from lapa_core.up import process_plans
from lapa_ros.params import EvaluateParams

REPORTER = "evaluate"
_ALARMS = ("[WARN]", "[ERROR]", "[FATAL]", "Traceback")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """A policy follows instructions on unseen scenes: live lines, a table, a video, a summary."""

    episodes: int = 20
    """Instructions to follow."""
    seed: int = 900_000
    """Seed of the first scene, far from those of training and recording; the next ones count up."""
    checkpoint: str = ""
    """Folder of the policy checkpoint; empty is the one that ships with lapa_core."""
    robot_model: str = "wx250s"
    """Interbotix robot model."""
    out: Path = Path("outputs/demo")
    """Where video, pictures, summary and logs go; an earlier summary becomes `summary_before.json`."""

    def __post_init__(self) -> None:
        allowed = {field.name: field.metadata for field in fields(EvaluateParams)}
        for name, value in (("episodes", self.episodes), ("seed", self.seed)):
            low, high = allowed[name]["low"], allowed[name]["high"]
            if value < low or (high is not None and value > high):
                most = "and more" if high is None else f"to {high}"
                raise ContractError(f"{name} is {value}; allowed is {low} {most}")


def main(config: DemoConfig) -> None:
    """Run the demo; exit non-zero when the loop did not close, never because an episode failed."""
    graph = load_graph("evaluate")
    given = {
        "episodes": str(config.episodes), "seed": str(config.seed), "checkpoint": config.checkpoint,
        "robot_model": config.robot_model, "out": str(config.out),
    }  # fmt: skip
    values = graph.values(given)
    environ = {**isolated(workspace_environment()), "PYTHONUNBUFFERED": "1"}
    logs = config.out / "log"
    logs.mkdir(parents=True, exist_ok=True)
    earlier = config.out / "summary.json"  # never to be taken for this run's
    if earlier.exists():
        earlier.replace(earlier.with_stem("summary_before"))
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    names = ", ".join(node.name for node in graph.active_nodes(values))
    print(f"starting {names} in ROS domain {environ['ROS_DOMAIN_ID']}; logs in {logs}", flush=True)
    console = _Console(logs, [node.name for node in graph.nodes])
    try:
        with Supervisor(process_plans(graph, values, environ), environ, console) as supervisor:
            status = supervisor.wait(interrupted)
            console.quiet = True  # what nodes say while they are being stopped is in their logs
    finally:
        console.close()
    sys.exit(130 if interrupted.is_set() else status)


class _Console:
    """Shows the report and what went wrong elsewhere; writes everything to one log file per node."""

    def __init__(self, folder: Path, names: list[str]):
        self.quiet = False
        self._lock = threading.Lock()
        self._files = {name: (folder / f"{name}.log").open("w", encoding="utf-8") for name in names}

    def __call__(self, name: str, line: str) -> None:
        with self._lock:
            file = self._files.get(name)
            if file is not None and not file.closed:
                file.write(line + "\n")
                file.flush()
            if name == REPORTER and not line.startswith("["):
                print(line, flush=True)
            elif not self.quiet and (name == "lapa" or any(mark in line for mark in _ALARMS)):
                print(f"    {name}: {line}", flush=True)

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
