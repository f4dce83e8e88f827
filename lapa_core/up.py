# SPDX-License-Identifier: Apache-2.0
"""`lapa up`: start a graph of config/graph.yaml as processes, for machines without `ros2 launch`. No rclpy here.

The same executables and the same YAML as the launch files start; output is prefixed with the node's name; Ctrl-C
stops the nodes in order, so that the arm holds (or parks) while its joint states still arrive.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from lapa_core.errors import ContractError, SetupError
from lapa_core.graph import PACKAGE, Graph, GraphNode, load_graph
from lapa_core.paths import config_dir
from lapa_core.ros_env import workspace_environment
from lapa_core.supervisor import ProcessPlan, Sink, Supervisor
from lapa_core.terminal import kept_terminal, with_terminal

_COLOURS = (36, 32, 33, 35, 34, 96, 92)


@dataclass(frozen=True, kw_only=True)
class UpConfig:
    """Start a ROS graph without `ros2 launch`."""

    graph: Annotated[str, tyro.conf.Positional] = "policy"
    """Graph of config/graph.yaml: policy, teleop, session, record, replay or evaluate."""
    use_sim: bool = True
    """The MuJoCo table stands for arm and camera; --no-use-sim starts the arm as a dry run."""
    robot_model: str = "wx250s"
    """Interbotix robot model."""
    robot_name: str = ""
    """Namespace of every node and topic; empty is none."""
    checkpoint: str = ""
    """Folder of the policy checkpoint, or ws://host:port of a `lapa serve`; empty is the one that ships with
    lapa_core."""
    camera_topic: str = ""
    """Camera topic without /image_raw; empty is the contract's front camera."""
    params_file: str = ""
    """YAML with parameters that replace those of config/nodes; empty is none."""
    set: tuple[str, ...] = ()
    """Further arguments of the graph, as name:=value (for example episodes:=450 folder:=outputs/teleop)."""


def main(config: UpConfig) -> None:
    """Run the graph until Ctrl-C, or until the node that ends it ends."""
    graph = load_graph(config.graph)
    values = graph.values(_given(config, graph))
    environ = with_terminal(workspace_environment())
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    plans = process_plans(graph, values, environ)
    with kept_terminal(), Supervisor(plans, environ, coloured_sink(graph)) as supervisor:
        status = supervisor.wait(interrupted)
    sys.exit(status)


def process_plans(
    graph: Graph, values: Mapping[str, str], environ: Mapping[str, str]
) -> list[ProcessPlan]:
    """Return the command line of every node that these argument values start.

    Raises:
        SetupError: an executable is not in the workspace.
        ContractError: `params_file` does not exist.
    """
    return [
        ProcessPlan(
            name=node.name, command=_command(node, values, environ), ends_all=node.ends_graph
        )
        for node in graph.active_nodes(values)
    ]


def coloured_sink(graph: Graph) -> Sink:
    """Return what prints a line behind its node's name, in a colour per node on a terminal."""
    names = ["lapa", *dict.fromkeys(node.name for node in graph.nodes)]
    width = max(map(len, names))
    colour = (
        {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
        if sys.stdout.isatty()
        else {}
    )
    lock = threading.Lock()

    def sink(name: str, line: str) -> None:
        label = f"{name:>{width}} |"
        if name in colour:
            label = f"\x1b[{colour[name]}m{label}\x1b[0m"
        with lock:
            print(label, line, flush=True)

    return sink


def _given(config: UpConfig, graph: Graph) -> dict[str, str]:
    """Return the arguments that were given; an option that equals its default may be one the graph lacks."""
    given = {}
    for name in ("robot_model", "robot_name", "checkpoint", "camera_topic", "params_file"):
        if (value := getattr(config, name)) != getattr(UpConfig, name):
            given[name] = value
    if not config.use_sim:
        given["use_sim"] = "false"
    for item in config.set:
        name, separator, value = item.partition(":=")
        if not separator:
            raise ContractError(f"argument {item!r} is not of the form name:=value")
        given[name] = value
    return given


def _command(node: GraphNode, values: Mapping[str, str], environ: Mapping[str, str]) -> list[str]:
    command = [
        str(_executable(node.executable, environ)),
        "--ros-args",
        "-r",
        f"__node:={node.name}",
    ]
    if values.get("robot_name"):
        command += ["-r", f"__ns:=/{values['robot_name'].strip('/')}"]
    command += ["--params-file", str(config_dir() / node.params)]
    if values.get("params_file"):
        if not Path(values["params_file"]).is_file():
            raise ContractError(f"params_file {values['params_file']!r} does not exist")
        command += ["--params-file", values["params_file"]]
    defaults = _parameters(node)
    for parameter, template in node.set.items():
        if value := template.format(**values):  # an empty value leaves the parameter's default
            command += ["-p", f"{parameter}:={_as_yaml(parameter, value, defaults[parameter])}"]
    return command


def _parameters(node: GraphNode) -> dict[str, Any]:
    """Return every parameter of a node with the value of its own file, which has the parameter's type."""
    path = config_dir() / node.params
    parameters: dict[str, Any] = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    return parameters


def _as_yaml(name: str, value: str, default: Any) -> str:
    """Return an argument's value as YAML of the type that its parameter has: `-p` is read as YAML.

    Raises:
        ContractError: it is not of that type.
    """
    try:
        if isinstance(default, str):
            return json.dumps(value, ensure_ascii=False)  # a YAML string too, whatever is in it
        if isinstance(default, bool):
            return {"true": "true", "false": "false"}[value]
        return str(type(default)(value))
    except (KeyError, ValueError) as error:
        kind = type(default).__name__
        raise ContractError(
            f"parameter {name} is {value!r}; a value of type {kind} is needed"
        ) from error


def _executable(name: str, environ: Mapping[str, str]) -> Path:
    for prefix in environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "lib" / PACKAGE / name
        if prefix and path.is_file():
            return path
    raise SetupError(
        f"{PACKAGE} has no executable {name} in this workspace; run `make setup`, which builds it"
    )
