# SPDX-License-Identifier: Apache-2.0
"""Two graphs in one ROS domain: each node says that it is not alone, in its log and its diagnostics."""

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lapa_ros import qos
from lapa_ros.namesakes import Namesakes
from lapa_ros.recorder_node import RecorderNode
from rclpy.node import Node


@pytest.fixture
def said():
    return []


def test_a_namesake_is_said_once_when_it_comes_and_when_it_is_gone(said):
    namesakes = Namesakes("/left/arm", 7, lambda *line: said.append(line))
    alone = [("arm", "/left"), ("arm", "/right"), ("arm", "/"), ("policy", "/left")]
    assert namesakes.look(alone) == ""
    assert namesakes.look([*alone, ("arm", "/left")]) == namesakes.look([*alone, ("arm", "/left")])
    assert namesakes.look(alone) == namesakes.look(alone) == ""
    (first, text), (second, over) = said
    assert (first, second) == ("warn", "info")
    assert text.startswith("2 nodes are called /left/arm in ROS domain 7")
    assert "ROS_DOMAIN_ID" in text
    assert over.startswith("over")


def test_a_node_without_a_namespace_is_found(said):
    namesakes = Namesakes("/arm", 7, lambda *line: said.append(line))
    assert "called /arm" in namesakes.look([("arm", "/"), ("arm", "/")])


def test_a_node_with_a_namesake_says_so_in_its_diagnostics(spinner, tmp_path):
    heard = []
    listener = spinner.add(Node("listener"))
    listener.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda message: heard.extend(message.status),
        qos.DIAGNOSTICS,
    )
    spinner.start(RecorderNode, folder=str(tmp_path))
    spinner.wait(lambda: heard, "diagnostics")
    assert heard[-1].level == DiagnosticStatus.OK, heard[-1].message
    other = Node("recorder")
    spinner.wait(lambda: heard[-1].level == DiagnosticStatus.WARN, "the namesake", 5.0)
    assert heard[-1].message.startswith("2 nodes are called /recorder")
    assert heard[-1].message.endswith("; idle")
    other.destroy_node()
    spinner.wait(lambda: heard[-1].level == DiagnosticStatus.OK, "the recorder to be alone", 5.0)
