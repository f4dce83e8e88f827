# SPDX-License-Identifier: Apache-2.0
"""A recorded episode is played on the arm, with every check of a policy's commands: do this before any policy.

Arguments and nodes: config/graph.yaml, graph `replay`; `ros2 launch lapa_bringup replay.launch.py --show-args`.
"""

from lapa_ros.launching import graph_actions

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Return the declared arguments and the nodes of the graph."""
    return LaunchDescription(graph_actions("replay"))
