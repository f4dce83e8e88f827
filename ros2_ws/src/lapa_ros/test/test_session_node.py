# SPDX-License-Identifier: Apache-2.0
"""The session node with a real recorder over DDS: what is asked for next, and what is not kept and why."""

import contextlib
import time

import pytest
from lapa_msgs.msg import ArmState, SessionState
from lapa_ros import qos
from lapa_ros.recorder_node import RecorderNode
from lapa_ros.remote import GraphError, call
from lapa_ros.session_node import SessionNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from lapa_core.data.curation import load_marks

TOPICS = ["joint_states sensor_msgs/msg/JointState", "arm_state lapa_msgs/msg/ArmState"]
SESSION = """
name: mine
operator: tester
tasks:
  push:
    episodes: 2
    instructions: [push the red block left]
    objects: [red block]
    layouts: [red in the middle]
"""


class Person:
    """Hears what is asked for, and presses buttons; joint states come by themselves."""

    def __init__(self, spinner):
        self._spinner = spinner
        self.node = spinner.add(Node("person"))
        self.state: SessionState | None = None
        self.node.create_subscription(SessionState, "session_state", self._on_state, qos.STATE)
        self._verbs = {
            verb: self.node.create_client(Trigger, f"session/{verb}")
            for verb in ("record", "save", "discard", "redo", "undo")
        }
        self._joints = self.node.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._arm = self.node.create_publisher(ArmState, "arm_state", qos.STATE)
        self.node.create_timer(0.02, self._talk)

    def _on_state(self, state):
        self.state = state

    def _talk(self):
        message = JointState(name=["waist"], position=[0.0])
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._joints.publish(message)

    def do(self, verb):
        return call(self._verbs[verb], Trigger.Request(), 10.0).message

    def record(self):
        for _ in range(30):  # until the recorder hears the joint states
            with contextlib.suppress(GraphError):
                return self.do("record")
            time.sleep(0.1)
        raise AssertionError("it never recorded")

    def wait_phase(self, phase):
        self._spinner.wait(lambda: self.state and self.state.phase == phase, f"phase {phase}")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.yaml").write_text(SESSION)
    return tmp_path / "episodes"


@pytest.fixture
def recorder(spinner, folder):
    return spinner.start(RecorderNode, folder=str(folder), topics=TOPICS, required=["joint_states"])


@pytest.fixture
def person(spinner, folder, recorder):
    spinner.start(SessionNode, session=str(folder.parent / "mine.yaml"), folder=str(folder))
    person = Person(spinner)
    person.wait_phase(SessionState.PHASE_SETUP)
    return person


def files(folder):
    return sorted(path.name for path in folder.glob("*.mcap*"))


def test_it_says_what_to_lay_out(person):
    state = person.state
    assert (state.session, state.task, state.num_kept, state.num_wanted) == ("mine", "push", 0, 2)
    assert (state.instruction, state.layout) == ("push the red block left", "red in the middle")
    assert list(state.objects) == ["red block"]


def test_an_episode_that_is_not_whole_is_asked_for_again_with_the_reason(person, folder):
    assert "RECORDING 'push the red block left'" in person.record()
    person.wait_phase(SessionState.PHASE_RECORDING)
    said = person.do("save")
    assert "NOT KEPT, once more please" in said
    assert "no delta was recorded" in said
    person.wait_phase(SessionState.PHASE_SETUP)
    assert person.state.num_kept == 0
    (name,) = files(folder)
    mark = load_marks(folder)[name]
    assert (mark.keep, mark.note.startswith("not whole: ")) == (False, True)


def test_discard_deletes_and_redo_records_at_once(person, folder):
    person.record()
    person.do("discard")
    assert files(folder) == []
    person.record()
    (first,) = files(folder)
    assert "recording anew" in person.do("redo")
    person.wait_phase(SessionState.PHASE_RECORDING)
    (second,) = files(folder)
    assert second != first
    person.do("discard")


@pytest.mark.parametrize("verb", ["save", "discard", "redo"])
def test_verbs_that_make_no_sense_now_are_refused(person, verb):
    with pytest.raises(GraphError, match=f"{verb} is not possible now: next: 'push"):
        person.do(verb)


def test_undo_with_nothing_kept_says_so(person):
    with pytest.raises(GraphError, match="nothing to undo"):
        person.do("undo")
    person.wait_phase(SessionState.PHASE_SETUP)


def test_a_recorder_that_refuses_leaves_the_session_where_it_was(spinner, folder):
    spinner.start(SessionNode, session=str(folder.parent / "mine.yaml"), folder=str(folder))
    spinner.start(
        RecorderNode,
        folder=str(folder),
        topics=TOPICS,
        required=["joint_states", "arm_state"],
    )
    person = Person(spinner)
    person.wait_phase(SessionState.PHASE_SETUP)
    with pytest.raises(GraphError, match="nothing is heard on"):
        person.do("record")
    person.wait_phase(SessionState.PHASE_SETUP)


def test_an_episode_that_a_restarted_recorder_lost_is_asked_for_again(person, recorder):
    person.record()
    person.wait_phase(SessionState.PHASE_RECORDING)
    recorder._session.stop(save=True, outcome="interrupted", now_s=recorder.now_s())()
    person.wait_phase(SessionState.PHASE_SETUP)
    assert "ended the episode by itself" in person.state.message


def test_nobody_as_operator_is_refused(ros_domain, folder):
    (folder.parent / "mine.yaml").write_text(SESSION.replace("tester", "''"))
    values = {"session": str(folder.parent / "mine.yaml"), "folder": str(folder)}
    node = SessionNode(parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    node.destroy_node()
