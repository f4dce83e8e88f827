# SPDX-License-Identifier: Apache-2.0
"""A scripted operator demonstrates in the simulator; every episode becomes one MCAP file.

Arguments and nodes: config/graph.yaml, graph `record`; `ros2 launch lapa_bringup record.launch.py --show-args`.
"""

from lapa_ros.launching import graph_actions

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Return the declared arguments and the nodes of the graph."""
    return LaunchDescription(graph_actions("record"))
