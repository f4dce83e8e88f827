# SPDX-License-Identifier: Apache-2.0
"""A policy drives the arm (simulated, or a dry run with your camera).

Arguments and nodes: config/graph.yaml, graph `policy`; `ros2 launch lapa_bringup policy.launch.py --show-args`.
"""

from lapa_ros.launching import graph_actions

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Return the declared arguments and the nodes of the graph."""
    return LaunchDescription(graph_actions("policy"))
