# SPDX-License-Identifier: Apache-2.0
"""A person drives the arm: keyboard, gamepad, SpaceMouse or leader arm, behind a hold-to-run switch.

Arguments and nodes: config/graph.yaml, graph `teleop`; `ros2 launch lapa_bringup teleop.launch.py --show-args`.
"""

from lapa_ros.launching import graph_actions

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Return the declared arguments and the nodes of the graph."""
    return LaunchDescription(graph_actions("teleop"))
