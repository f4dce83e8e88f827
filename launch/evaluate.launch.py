# SPDX-License-Identifier: Apache-2.0
"""The policy follows instructions on simulated scenes; ends with a table, a video and a summary.

Arguments and nodes: config/graph.yaml, graph `evaluate`; `ros2 launch lapa_bringup evaluate.launch.py --show-args`.
"""

from lapa_ros.launching import graph_actions

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Return the declared arguments and the nodes of the graph."""
    return LaunchDescription(graph_actions("evaluate"))
