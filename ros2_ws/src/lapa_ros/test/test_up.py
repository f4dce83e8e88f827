# SPDX-License-Identifier: Apache-2.0
"""What `lapa up` puts on a command line arrives in the parameters of real nodes, letter by letter."""

import os

import pytest
from lapa_ros.recorder_node import RecorderNode
from lapa_ros.sim_node import SimNode

from lapa_core.graph import load_graph
from lapa_core.up import process_plans


def started(kind, graph_name, given):
    """Return the parameters of one node that is started with a graph's command line."""
    graph = load_graph(graph_name)
    plans = process_plans(graph, graph.values(given), os.environ)
    name = kind.__name__.removesuffix("Node").lower()
    (plan,) = [plan for plan in plans if plan.name == name]
    node = kind(cli_args=list(plan.command)[1:], use_global_arguments=False)
    params = node.params
    node.destroy_node()
    return params


@pytest.mark.parametrize(
    "folder",
    ["on", "1.0", "007", "null", "~", "a: b", "[1, 2]", "{a: 1}", "# x", "it's", 'a "b" \\n c', "!!int 3",
     "outputs/teleop", " spaces ", "&a *b", "käse/日本/🙂", "true", "1e3", "-", "x:=y", "tab\there"],
)  # fmt: skip
def test_strings_stay_what_they_are(ros_domain, folder):
    assert started(RecorderNode, "record", {"folder": folder}).folder == folder


def test_numbers_keep_their_type(ros_domain):
    assert started(SimNode, "evaluate", {}).spectator_rate_hz == 10.0


def test_an_empty_argument_leaves_the_default(ros_domain):
    assert started(RecorderNode, "record", {"folder": ""}).folder == "outputs/recordings"
