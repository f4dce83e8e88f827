# SPDX-License-Identifier: Apache-2.0
"""A scripted operator works through a session file in the simulator, with the recorder.

Arguments and nodes: config/graph.yaml, graph `session`; `ros2 launch lapa_bringup session.launch.py --show-args`.
"""

from lapa_ros.launching import graph_actions

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Return the declared arguments and the nodes of the graph."""
    return LaunchDescription(graph_actions("session"))
