# SPDX-License-Identifier: Apache-2.0
"""`config/graph.yaml`: what a ROS graph consists of, for `lapa up` and for the launch files. No ROS imports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lapa_core.errors import ContractError
from lapa_core.paths import config_dir

PACKAGE = "lapa_ros"
"""Package of every executable."""
Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True)
class Argument:
    """A deployment fact that a graph is started with."""

    default: str
    """Value where none is given."""
    description: str
    """For `--show-args`."""
    choices: tuple[str, ...] = ()
    """Allowed values; empty allows any."""


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """One node, before the arguments are known."""

    name: str
    """Node name."""
    executable: str
    """Executable of `PACKAGE`."""
    params: str
    """Parameter file, relative to the config folder."""
    when: Mapping[str, str | list[str]] = field(default_factory=dict)
    """Argument values, one or several, with which the node is part of the graph; empty is always."""
    set: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> template; `{name}` stands for an argument's value."""
    ends_graph: bool = False
    """Whether the graph ends with this node."""

    def allowed(self, argument: str) -> list[str]:
        """Return the values of an argument of `when` with which the node is started."""
        value = self.when[argument]
        return [value] if isinstance(value, str) else list(value)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One entry of `graphs`."""

    name: str
    """Its key."""
    description: str
    """One sentence."""
    arguments: Mapping[str, Argument]
    """What it can be started with."""
    nodes: tuple[GraphNode, ...]
    """In the order of starting."""

    def values(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the value of every argument.

        Raises:
            ContractError: an argument is unknown, or a value is not among its choices.
        """
        if unknown := sorted(set(given) - set(self.arguments)):
            raise ContractError(
                f"graph {self.name} has no argument {unknown}; allowed are {sorted(self.arguments)}"
            )
        values = {
            name: given.get(name, argument.default) for name, argument in self.arguments.items()
        }
        for name, value in values.items():
            choices = self.arguments[name].choices
            if choices and value not in choices:
                raise ContractError(f"argument {name} is {value!r}; allowed are {list(choices)}")
        return values

    def active_nodes(self, values: Mapping[str, str]) -> list[GraphNode]:
        """Return the nodes that these argument values start."""
        return [
            node
            for node in self.nodes
            if all(values[key] in node.allowed(key) for key in node.when)
        ]


def load_graphs(path: Path | None = None) -> dict[str, Graph]:
    """Return every graph of `config/graph.yaml`, checked.

    Raises:
        ContractError: a key is unknown or missing, or a template or condition names no argument of its graph.
    """
    path = config_dir() / "graph.yaml" if path is None else path
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    _check_keys(data, {"arguments", "graphs"}, str(path))
    arguments = {
        name: _build(
            Argument,
            {**entry, "choices": tuple(entry.get("choices", ()))},
            f"{path}: arguments.{name}",
        )
        for name, entry in data["arguments"].items()
    }
    return {
        name: _graph(name, entry, arguments, f"{path}: graphs.{name}")
        for name, entry in data["graphs"].items()
    }


def load_graph(name: str) -> Graph:
    """Return one graph.

    Raises:
        ContractError: no such graph, or the file is wrong.
    """
    graphs = load_graphs()
    if name not in graphs:
        raise ContractError(f"graph {name!r} is unknown; allowed are {sorted(graphs)}")
    return graphs[name]


def _graph(
    name: str, entry: dict[str, Any], arguments: Mapping[str, Argument], where: str
) -> Graph:
    _check_keys(entry, {"description", "arguments", "nodes"}, where)
    if unknown := sorted(set(entry["arguments"]) - set(arguments)):
        raise ContractError(f"{where} takes {unknown}, which are not under `arguments`")
    nodes = tuple(
        _build(GraphNode, node, f"{where}: {node.get('name')}") for node in entry["nodes"]
    )
    graph = Graph(
        name=name, description=entry["description"], nodes=nodes,
        arguments={key: arguments[key] for key in entry["arguments"]},
    )  # fmt: skip
    for node in nodes:
        for template in node.set.values():
            try:
                template.format(**graph.values({}))
            except KeyError as error:
                raise ContractError(
                    f"{where}: {node.name} uses {error}, which the graph does not take"
                ) from error
        if unknown := sorted(set(node.when) - set(graph.arguments)):
            raise ContractError(
                f"{where}: {node.name} depends on {unknown}, which the graph does not take"
            )
    return graph


def _check_keys(entry: Any, needed: set[str], where: str) -> None:
    found = set(entry) if isinstance(entry, dict) else set()
    if found != needed:
        raise ContractError(f"{where} has the keys {sorted(found)}; needed are {sorted(needed)}")


def _build(kind: type[Entry], entry: dict[str, Any], where: str) -> Entry:
    allowed = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(entry) - allowed):
        raise ContractError(f"{where} has unknown keys {unknown}; allowed are {sorted(allowed)}")
    try:
        return kind(**entry)
    except TypeError as error:
        raise ContractError(f"{where}: {error}") from error
