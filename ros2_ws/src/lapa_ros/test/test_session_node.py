# SPDX-License-Identifier: Apache-2.0
"""The session node with a real recorder over DDS: what is asked for next, and what is not kept and why."""

import contextlib
import time

import pytest
from lapa_msgs.msg import ArmState, SessionState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_msgs.srv import StartEpisode, StopEpisode
from lapa_ros import qos
from lapa_ros.diagnostics import OK, WARN
from lapa_ros.episode_file import EpisodeFile
from lapa_ros.recorder_node import RecorderNode
from lapa_ros.remote import GraphError, call
from lapa_ros.session_logic import read_metadata
from lapa_ros.session_node import SessionNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, JointState
from std_srvs.srv import Trigger

from lapa_core.data.curation import load_marks
from lapa_core.robot.contract import load_contract

TOPICS = [
    "joint_states sensor_msgs/msg/JointState",
    "arm_state lapa_msgs/msg/ArmState",
    "delta lapa_msgs/msg/EndEffectorDelta",
    "camera/front/image_raw/compressed sensor_msgs/msg/CompressedImage",
]
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
        topic = "camera/front/image_raw/compressed"
        self._camera = self.node.create_publisher(CompressedImage, topic, qos.CAMERA_DRIVER)
        self._arm = self.node.create_publisher(ArmState, "arm_state", qos.STATE)
        self._deltas = self.node.create_publisher(DeltaMsg, "delta", qos.DELTA)
        self._hash = load_contract("wx250s_sim").hash
        self.talking = True
        self._sequence, self.driving, self.x_m = 0, False, 0.01
        self.node.create_timer(0.2, self._drive)
        self.node.create_timer(0.02, self._talk)

    def _on_state(self, state):
        self.state = state

    def _talk(self):
        if not self.talking:
            return
        message = JointState(name=["waist"], position=[0.0])
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._joints.publish(message)
        picture = CompressedImage(header=message.header)
        self._camera.publish(picture)

    def _drive(self):
        """Command, as an arm that obeys at once."""
        stamp = self.node.get_clock().now().to_msg()
        if self.driving:
            self._sequence += 1
            delta = DeltaMsg(
                source="operator", sequence=self._sequence, gripper=1.0, contract_hash=self._hash
            )
            delta.header.stamp, delta.translation.x = stamp, self.x_m
            self._deltas.publish(delta)
        last = "operator" if self._sequence else ""
        state = ArmState(
            last_applied_source=last, last_applied_sequence=self._sequence, applied=self._sequence,
            contract_hash=self._hash,
        )  # fmt: skip
        state.measured_pose.orientation.w = 1.0
        state.header.stamp = stamp
        self._arm.publish(state)

    def wait_message(self, *words):
        self._spinner.wait(
            lambda: self.state and all(word in self.state.message for word in words), f"{words}"
        )

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
def session(spinner, folder, recorder):
    path = str(folder.parent / "mine.yaml")
    return spinner.start(SessionNode, session=path, folder=str(folder))


@pytest.fixture
def person(spinner, session):
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


def test_it_says_how_fast_it_goes(person, session, folder):
    assert "an hour" not in session._sentence()
    for number in range(2):
        session._progress.keep(save_unjudged(folder, "any", number))
    session._begun_s = time.monotonic() - 360.0
    assert session._sentence().endswith("2 of 2 kept, 20 an hour)")
    person._spinner.wait(lambda: person.state.num_kept == 2, "the state")
    assert person.state.rate_per_h == pytest.approx(20.0, rel=0.05)


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


def test_it_shows_what_an_episode_is_like_while_it_is_recorded(person, session):
    person.record()
    person.driving = True
    person.wait_message(" rows at ", "/joint_states ", " 0% still", "frame age p95 ")
    assert session.health().values["still_share"] == 0.0
    assert session.health().level == OK
    person.x_m = 0.0
    person.wait_message("nothing moves in ", " rows at ")
    assert session.health().level == WARN
    assert "nothing moves in" in session.health().message
    person.do("discard")
    assert session.health().message == "0 of 2 episodes"
    assert "still_share" not in session.health().values


def test_a_hole_that_would_keep_an_episode_out_is_said_at_once(person):
    person.record()
    person.driving = True
    person.wait_message(" rows at ")
    person.driving = False
    time.sleep(1.3)
    person.driving = True
    person.wait_message("lie between two deltas, at most 1 s may: it will not be kept")
    person.do("redo")
    person.wait_message("no rows yet")


def test_a_topic_that_falls_silent_is_said_while_the_episode_is_open(person):
    person.record()
    person.talking = False
    person.wait_message("nothing is heard on ['/joint_states']")


def test_a_recorder_that_falls_silent_is_said_while_the_episode_is_open(
    person, spinner, recorder, monkeypatch
):
    monkeypatch.setattr("lapa_ros.session_watch.EpisodeWatch.RECORDER_SILENCE_S", 1.0)
    person.record()
    person.wait_phase(SessionState.PHASE_RECORDING)
    spinner.hang(recorder)
    person.wait_message("the recorder is silent")


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


def save_unjudged(folder, contract_hash, number=0):
    """Leave what a session node leaves that is killed before it has judged: a success without one delta."""
    facts = {"session": "mine", "task": "push", "number": number}
    metadata = {"extra": facts, "started_at": "2026-11-23T10:00:00", "contract_hash": contract_hash}
    folder.mkdir(parents=True, exist_ok=True)
    file = EpisodeFile(folder, f"ep_{number}", [], metadata, queue_size=4, flush_period_s=0.5)
    return file.finish(lambda: {"outcome": "success"})


@pytest.mark.parametrize("same", [True, False])
def test_what_a_crash_left_unjudged_is_judged_at_the_next_start(spinner, folder, contract, same):
    """Under another contract nothing is judged: that is another robot's session, or a mistake of this start."""
    path = save_unjudged(folder, contract.hash if same else "another")
    session = spinner.start(
        SessionNode, session=str(folder.parent / "mine.yaml"), folder=str(folder)
    )
    assert session.health().message.startswith(f"{0 if same else 1} of 2")
    assert [name for name, mark in load_marks(folder).items() if not mark.keep] == (
        [path.name] if same else []
    )


def test_what_was_judged_is_not_judged_by_the_limits_of_another_day(spinner, person, folder):
    person.record()
    person.driving = True
    person.wait_message(" rows at ")
    assert person.do("save").startswith("kept ")
    session = spinner.start(
        SessionNode, session=str(folder.parent / "mine.yaml"), folder=str(folder), min_rows=100
    )
    assert session.health().message.startswith("1 of 2")


def test_an_episode_that_a_session_before_left_open_does_not_lock_the_recorder(person, folder):
    start = person.node.create_client(StartEpisode, "recorder/start")
    person.record()
    person.do("discard")
    left = call(
        start, StartEpisode.Request(instruction="left open", operator_name="tester")
    ).episode_id
    time.sleep(0.6)  # a session that starts meanwhile hears the recorder's state
    assert "RECORDING 'push the red block left'" in person.do("record")
    assert read_metadata(folder / f"{left}.mcap")["outcome"] == "interrupted"
    assert "recording anew" in person.do("redo")
    person.do("discard")


def test_an_episode_that_could_not_be_ended_does_not_lock_the_recorder(
    person, session, folder, monkeypatch
):
    """Regression pinned: the session took it for ended, and every later ~/record was refused."""
    person.node.create_service(StopEpisode, "broken_stop", lambda request, response: response)
    broken = session.create_client(StopEpisode, "broken_stop")
    person.record()
    left = session._open_id
    with monkeypatch.context() as patch:
        patch.setattr(session, "_recorder_stop", broken)
        with pytest.raises(GraphError, match="refused"):
            person.do("save")
    time.sleep(0.6)  # the recorder says twice a second that it goes on
    assert "RECORDING 'push the red block left'" in person.do("record")
    assert read_metadata(folder / f"{left}.mcap")["outcome"] == "interrupted"
    person.do("discard")


def test_nobody_as_operator_is_refused(ros_domain, folder):
    (folder.parent / "mine.yaml").write_text(SESSION.replace("tester", "''"))
    values = {"session": str(folder.parent / "mine.yaml"), "folder": str(folder)}
    node = SessionNode(parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    node.destroy_node()
