# SPDX-License-Identifier: Apache-2.0
"""The parameter table, the YAML files and the graph say the same."""

from dataclasses import fields

import pytest
import yaml
from lapa_ros.params import PARAMETERS, ArmParams, declare
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from lapa_core.graph import load_graphs
from lapa_core.paths import config_dir


def _default(item):
    return item.default_factory() if callable(item.default_factory) else item.default


@pytest.mark.parametrize("name", PARAMETERS)
def test_yaml_holds_exactly_the_table(name):
    document = yaml.safe_load((config_dir() / "nodes" / f"{name}.yaml").read_text())
    written = document["/**"]["ros__parameters"]
    assert written == {item.name: _default(item) for item in fields(PARAMETERS[name])}


@pytest.mark.parametrize("name", PARAMETERS)
def test_yaml_comments_every_key_with_its_description(name):
    lines = (config_dir() / "nodes" / f"{name}.yaml").read_text().splitlines()
    for item in fields(PARAMETERS[name]):
        position = next(
            i for i, line in enumerate(lines) if line.strip().startswith(f"{item.name}:")
        )
        assert item.metadata["text"] in lines[position - 1]


def test_every_yaml_file_belongs_to_a_node():
    assert {path.stem for path in (config_dir() / "nodes").glob("*.yaml")} == set(PARAMETERS)


def test_graphs_set_parameters_that_exist():
    for graph in load_graphs().values():
        for node in graph.nodes:
            known = {item.name for item in fields(PARAMETERS[node.name])}
            assert set(node.set) <= known, (graph.name, node.name)
            assert node.params == f"nodes/{node.name}.yaml"


def test_declared_parameters_are_described_bounded_and_read_only(spinner):
    node = spinner.add(Node("declaring"))
    params = declare(node, ArmParams)
    assert params == ArmParams()
    rate = node.describe_parameter("state_rate_hz")
    assert rate.read_only
    assert rate.description
    assert (rate.floating_point_range[0].from_value, rate.floating_point_range[0].to_value) == (
        1.0,
        100.0,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("state_rate_hz", 1e6), ("max_command_age_s", -1.0), ("backend", "telepathy")],
)
def test_values_out_of_bounds_are_refused(spinner, name, value):
    node = spinner.add(Node("declaring", parameter_overrides=[Parameter(name, value=value)]))
    with pytest.raises(InvalidParameterValueException):
        declare(node, ArmParams)
