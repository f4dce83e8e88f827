# SPDX-License-Identifier: Apache-2.0
"""`config/graph.yaml` as launch actions: the other of the two ways to start a graph (`lapa up` is the first)."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from launch.action import Action
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.condition import Condition
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.launch_context import LaunchContext
from launch.substitution import Substitution
from launch.substitutions import LaunchConfiguration, PythonExpression, TextSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from lapa_core.errors import LapaError
from lapa_core.graph import PACKAGE, GraphNode, load_graph
from lapa_core.launcher import LAUNCHER_VARIABLE, Process
from lapa_core.paths import config_dir
from lapa_core.supervisor import STOP_LIMIT_S, describe
from lapa_ros.params import PARAMETERS

_SLOT = re.compile(r"\{(\w+)\}")


class FirstGiven(Substitution):
    """The first of several texts that is not empty."""

    def __init__(self, *choices: Substitution):
        super().__init__()
        self._choices = choices

    def perform(self, context: LaunchContext) -> str:
        """Return it, or "" where all are empty."""
        texts = (choice.perform(context) for choice in self._choices)
        return next((text for text in texts if text), "")


class ThisProcess(Substitution):
    """The process that starts the nodes, which they watch: `ros2 launch` leaves them running when it is killed."""

    def perform(self, context: LaunchContext) -> str:
        """Return it as the nodes read it."""
        return Process.this().text()


def graph_actions(name: str) -> list[Action]:
    """Return the declarations of a graph's arguments, then its nodes.

    Raises:
        ContractError: no such graph, or its description is wrong.
    """
    graph = load_graph(name)
    declarations: list[Action] = []
    for key, argument in graph.arguments.items():
        choices = {"choices": list(argument.choices)} if argument.choices else {}
        declarations.append(
            DeclareLaunchArgument(
                key, default_value=argument.default, description=argument.description, **choices
            )
        )
    return [*declarations, *(_node(node, "params_file" in graph.arguments) for node in graph.nodes)]


def _node(node: GraphNode, has_params_file: bool) -> Node:
    own_file = str(config_dir() / node.params)
    files: list[Any] = [own_file]
    if has_params_file:  # no value: the node's own file once more, which changes nothing
        files.append(
            FirstGiven(LaunchConfiguration("params_file"), TextSubstitution(text=own_file))
        )
    overrides = {
        key: ParameterValue(_text(text), value_type=_type(node, key))
        for key, text in node.set.items()
    }
    return Node(
        package=PACKAGE,
        executable=node.executable,
        name=node.name,
        namespace=LaunchConfiguration("robot_name"),
        parameters=[*files, overrides],
        additional_env={LAUNCHER_VARIABLE: ThisProcess()},
        condition=_condition(node),
        output="screen",
        on_exit=_end_all if node.ends_graph else None,
        sigterm_timeout=str(STOP_LIMIT_S),  # after SIGINT, as in `lapa up`: an arm may have to park
    )


def _end_all(event: ProcessExited, _: LaunchContext) -> Shutdown:
    """End everything after one node; `ros2 launch` ends with 1 where an exception ends it, and with 0 otherwise.

    Raises:
        LapaError: the node did not end well.
    """
    text = f"{event.process_name} has ended with {describe(event.returncode)}"
    if event.returncode:
        raise LapaError(text)
    return Shutdown(reason=text)


def _condition(node: GraphNode) -> Condition | None:
    terms: list[Any] = []
    for key in node.when:
        joined = " and " if terms else ""
        terms += [joined, "'", LaunchConfiguration(key), f"' in {node.allowed(key)}"]
    return IfCondition(PythonExpression(terms)) if terms else None


def _text(template: str) -> list[Substitution]:
    """Return a template with `{argument}` slots as substitutions."""
    parts: list[Substitution] = []
    for index, piece in enumerate(_SLOT.split(template)):
        if index % 2:
            parts.append(LaunchConfiguration(piece))
        elif piece:
            parts.append(TextSubstitution(text=piece))
    return parts or [TextSubstitution(text="")]


def _type(node: GraphNode, parameter: str) -> type:
    return type(
        next(item.default for item in fields(PARAMETERS[node.name]) if item.name == parameter)
    )
