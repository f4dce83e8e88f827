# SPDX-License-Identifier: Apache-2.0
"""Episodes on disk: finished, discarded, and rescued from a kill. The recorder runs as its own process over DDS."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from lapa_msgs.msg import ArmState, RecorderState
from lapa_msgs.srv import StartEpisode, StopEpisode
from lapa_ros import qos
from lapa_ros.recorder_node import RecorderNode
from lapa_ros.remote import GraphError, call
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState, Joy

from lapa_core.data.mcap_episode import read_recording
from lapa_core.launcher import LAUNCHER_VARIABLE, Process

TOPICS = ["joint_states sensor_msgs/msg/JointState", "arm_state lapa_msgs/msg/ArmState"]
PERIOD_S = 0.02
"""Between two messages that are recorded [s]."""


class Talker:
    """Publishes what is recorded, and speaks to the recorder."""

    def __init__(self, spinner, folder):
        self._spinner, self.folder = spinner, folder
        self.node = spinner.add(Node("talker"))
        self.states: list[RecorderState] = []
        self._joints = self.node.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._arm = self.node.create_publisher(ArmState, "arm_state", qos.STATE)
        self._start = self.node.create_client(StartEpisode, "recorder/start")
        self._stop = self.node.create_client(StopEpisode, "recorder/stop")
        self.node.create_subscription(
            RecorderState, "recorder_state", self.states.append, qos.STATE
        )
        self.node.create_timer(PERIOD_S, self._talk)
        self.talking, self.num_sent = True, 0
        self.process = None

    def run(self):
        """Run a recorder as a process of its own."""
        self.states.clear()
        arguments = [
            "-p",
            f"folder:={self.folder}",
            "-p",
            f"topics:={json.dumps(TOPICS)}",
            "-p",
            "required:=[joint_states]",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lapa_ros.recorder_node", "--ros-args", *arguments]
        )
        self._spinner.wait(lambda: self.states, "the recorder", 60.0)

    def _talk(self):
        if self.talking:
            self.num_sent += 1
            message = JointState(name=["waist"], position=[float(self.num_sent)])
            message.header.stamp = self.node.get_clock().now().to_msg()
            self._joints.publish(message)
            self._arm.publish(ArmState(reason="fine"))

    def start(self, instruction="push the red block left", metadata_json='{"seed": 7}'):
        request = StartEpisode.Request(
            instruction=instruction, operator_name="test", metadata_json=metadata_json
        )
        return call(self._start, request).episode_id

    def start_when_heard(self):
        """Start as soon as the recorder hears the topics."""
        for _ in range(50):
            with contextlib.suppress(GraphError):
                return self.start()
            time.sleep(0.1)
        raise AssertionError("the recorder never heard the topics")

    def stop(self, save=True):
        return call(self._stop, StopEpisode.Request(save=save, outcome="success")).path

    def end(self, number=signal.SIGINT):
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(30.0)

    def close(self):
        """Leave no recorder behind, whatever became of the test."""
        try:
            if self.process is not None:
                self.end()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@pytest.fixture
def recorder(spinner, tmp_path):
    """A recorder in this process, heard by a talker."""
    parameters = {"folder": str(tmp_path), "topics": TOPICS, "required": ["joint_states"]}
    node = RecorderNode(
        parameter_overrides=[Parameter(key, value=value) for key, value in parameters.items()]
    )
    assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
    spinner.add(node)
    talker = Talker(spinner, tmp_path)
    talker.recorder = node
    talker.start_when_heard()
    talker.stop(save=False)
    return talker


@pytest.fixture
def process(spinner, tmp_path):
    """A recorder in a process that can be killed."""
    talker = Talker(spinner, tmp_path)
    try:
        talker.run()
        yield talker
    finally:
        talker.close()


def decoded(path, topic):
    with open(path, "rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        return [message for _, _, _, message in reader.iter_decoded_messages([topic])]


def positions(path):
    return [message.position[0] for message in decoded(path, "/joint_states")]


def test_an_episode_holds_every_message_in_order_and_its_facts(recorder, spinner, contract):
    episode_id = recorder.start()
    assert (recorder.folder / f"{episode_id}.mcap.part").exists()
    enough = recorder.num_sent + 50
    spinner.wait(lambda: recorder.num_sent > enough, "50 messages")
    path = recorder.stop()
    assert path == str(recorder.folder / f"{episode_id}.mcap")
    numbers = positions(path)
    assert len(numbers) > 20
    assert numbers == [float(n) for n in range(int(numbers[0]), int(numbers[0]) + len(numbers))]
    facts = read_recording(recorder.folder / f"{episode_id}.mcap").metadata
    assert (facts["instruction"], facts["outcome"], facts["extra"]) == (
        "push the red block left",
        "success",
        {"seed": 7},
    )
    assert facts["contract_hash"] == contract.hash
    assert facts["num_written"]["/joint_states"] == len(numbers)
    assert facts["num_dropped"] == {"/joint_states": 0, "/arm_state": 0}


@pytest.mark.parametrize("profile", [qos.JOINT_STATES, qos_profile_sensor_data])
def test_what_the_hand_did_is_recorded_beside_the_rest(spinner, tmp_path, profile):
    """Of a driver of either reliability, by the topics that a recorder has by itself."""
    node = spinner.start(RecorderNode, folder=str(tmp_path), required=["joint_states"])
    talker = Talker(spinner, tmp_path)
    joy = talker.node.create_publisher(Joy, "joy", profile)
    spinner.wait(joy.get_subscription_count, "the recorder's subscription")
    episode_id = talker.start_when_heard()
    for number in range(5):
        joy.publish(Joy(axes=[float(number)], buttons=[number % 2]))
        spinner.wait(
            lambda written=number + 1: node._session.file.num_written[-1] == written, "the reading"
        )
    talker.stop()
    told = decoded(tmp_path / f"{episode_id}.mcap", "/joy")
    assert [(message.axes[0], message.buttons[0]) for message in told] == [
        (float(number), number % 2) for number in range(5)
    ]


def test_discard_leaves_nothing(recorder):
    recorder.start()
    time.sleep(0.2)
    assert recorder.stop(save=False) == ""
    assert list(recorder.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"topics": ["joint_states"]}, "allowed is `topic package/msg/Type`"),
        ({"topics": [*TOPICS, "/joint_states sensor_msgs/msg/JointState"]}, "/joint_states twice"),
        ({"topics": TOPICS, "required": ["joy"]}, "/joy"),
    ],
)
def test_topics_that_cannot_be_recorded_so_are_refused(ros_domain, tmp_path, capfd, values, words):
    given = {"folder": str(tmp_path), "required": ["joint_states"], **values}
    node = RecorderNode(parameter_overrides=[Parameter(k, value=v) for k, v in given.items()])
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert words in capfd.readouterr().err
    node.destroy_node()


def test_unusable_requests_are_refused_with_a_reason(recorder):
    with pytest.raises(GraphError, match="no episode is open"):
        recorder.stop()
    with pytest.raises(GraphError, match="instruction is empty"):
        recorder.start(instruction=" ")
    with pytest.raises(GraphError, match="JSON object"):
        recorder.start(metadata_json="[1]")
    recorder.start()
    with pytest.raises(GraphError, match="stop it first"):
        recorder.start()
    recorder.stop(save=False)
    recorder.talking = False
    time.sleep(1.3)
    with pytest.raises(GraphError, match=r"nothing is heard on .*joint_states"):
        recorder.start()


def test_a_killed_recorder_loses_at_most_the_last_second_and_recovers_by_itself(process):
    episode_id = process.start_when_heard()
    time.sleep(2.0)
    last_sent = process.num_sent
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    assert [path.name for path in process.folder.iterdir()] == [f"{episode_id}.mcap.part"]
    process.run()
    rescued = process.folder / f"{episode_id}.mcap"
    assert [path.name for path in process.folder.iterdir()] == [rescued.name]
    lost_s = (last_sent - positions(rescued)[-1]) * PERIOD_S
    print(f"killed: the last {lost_s:.2f} s are lost")
    assert lost_s < 1.0
    assert read_recording(rescued).metadata["outcome"] == "interrupted"


def test_an_interrupt_during_an_episode_saves_it(process, spinner):
    episode_id = process.start_when_heard()
    time.sleep(0.3)
    path = process.folder / f"{episode_id}.mcap"
    process.process.send_signal(signal.SIGINT)
    begun_s = time.monotonic()
    spinner.wait(path.is_file, "the episode")
    took_s = time.monotonic() - begun_s
    print(f"interrupted: saved after {took_s:.2f} s")
    assert took_s < 2.0
    assert process.end() == 0
    assert read_recording(path).metadata["outcome"] == "interrupted"


def test_a_recorder_whose_launcher_is_gone_saves_its_episode(spinner, tmp_path, monkeypatch):
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE
    ) as launcher:
        monkeypatch.setenv(LAUNCHER_VARIABLE, Process.of(launcher.pid).text())
        talker = Talker(spinner, tmp_path)
        try:
            talker.run()
            episode_id = talker.start_when_heard()
            launcher.kill()
            assert talker.process.wait(30.0) == 0
        finally:
            talker.close()
    facts = read_recording(tmp_path / f"{episode_id}.mcap").metadata
    assert facts["outcome"] == "interrupted"


def test_the_state_topic_shows_progress(recorder, spinner):
    recorder.start()
    spinner.wait(lambda: any(s.state == RecorderState.STATE_RECORDING and sum(s.num_written) for s in recorder.states),
                 "a state with messages written")  # fmt: skip
    recorder.stop()
    spinner.wait(lambda: recorder.states[-1].state == RecorderState.STATE_IDLE, "idle")
    assert (recorder.states[-1].num_saved, recorder.states[-1].num_in_folder) == (1, 1)


def test_an_episode_is_ended_whole_before_the_disk_is_full(recorder, spinner, monkeypatch):
    episode_id = recorder.start()
    enough = recorder.num_sent + 30
    spinner.wait(lambda: recorder.num_sent > enough, "30 messages")
    nearly_full = shutil.disk_usage(recorder.folder)._replace(free=100_000_000)
    monkeypatch.setattr("lapa_ros.recording.shutil.disk_usage", lambda _: nearly_full)
    full_s = time.monotonic()
    path = recorder.folder / f"{episode_id}.mcap"
    spinner.wait(path.is_file, "the end of the episode")
    took_s = time.monotonic() - full_s
    print(f"disk nearly full: the episode is whole after {took_s:.2f} s")
    assert took_s < 2.0
    assert len(positions(path)) > 10
    assert read_recording(path).metadata["outcome"] == "interrupted"
    spinner.wait(lambda: recorder.states[-1].state == RecorderState.STATE_IDLE, "the state")
    assert "100 MB are free" in recorder.states[-1].message
    with pytest.raises(GraphError, match="100 MB are free"):
        recorder.start()


def test_a_stop_during_the_end_that_a_full_disk_brought_does_not_cut_it_short(
    recorder, spinner, monkeypatch
):
    """Who shuts down then must still wait for the file."""
    recorder.start()
    file, slow = recorder.recorder._session.file, threading.Event()
    add_message = file._writer.add_message
    file._writer.add_message = lambda *a: (slow.wait(10.0), add_message(*a))
    nearly_full = shutil.disk_usage(recorder.folder)._replace(free=100_000_000)
    monkeypatch.setattr("lapa_ros.recording.shutil.disk_usage", lambda _: nearly_full)
    spinner.wait(lambda: not recorder.recorder.may_shut_down(), "the end to begin")
    with pytest.raises(GraphError, match="no episode is open"):
        recorder.stop()
    assert not recorder.recorder.may_shut_down()
    slow.set()
    spinner.wait(recorder.recorder.may_shut_down, "the end of the episode")
    assert file.path.is_file()
