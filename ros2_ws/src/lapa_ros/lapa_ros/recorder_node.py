# SPDX-License-Identifier: Apache-2.0
"""`recorder`: one MCAP file per episode, raw messages, nothing resampled. A shell around `RecordingSession`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus
from lapa_msgs.msg import ArmState, RecorderState
from lapa_msgs.msg import EndEffectorDelta as DeltaMsg
from lapa_msgs.srv import StartEpisode, StopEpisode
from rclpy.serialization import deserialize_message
from rclpy.task import Future

from lapa_core.data.mcap_episode import recover
from lapa_core.errors import ContractError, DataError
from lapa_core.robot.contract import RobotContract, load_contract
from lapa_ros import qos
from lapa_ros.clock import header_stamp, to_seconds, to_stamp
from lapa_ros.diagnostics import ERROR, OK, WARN, Health, status_message
from lapa_ros.episode_file import Stream
from lapa_ros.lifecycle import ManagedNode, run
from lapa_ros.recording import RESERVED_BYTES, RecordingSession
from lapa_ros.recording_quality import QualityMeter
from lapa_ros.remote import in_thread
from lapa_ros.schema import message_class, schema_text

PICTURES = frozenset({"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"})
DEVICES = PICTURES | {"sensor_msgs/msg/Joy"}
"""Types whose drivers may publish best effort, which a reliable subscriber would never hear."""


class RecorderNode(ManagedNode):
    """Subscribes what the parameter `topics` names; serves ~/start and ~/stop; publishes how the recording is."""

    def __init__(self, **kwargs: object):
        super().__init__("recorder", **kwargs)
        self._session: RecordingSession | None = None
        self._closing = False

    def setup(self) -> None:
        """Make the folder, rescue what a crash left there, and subscribe."""
        contract = load_contract(self.params.contract)
        streams = [self._stream(line) for line in self.params.topics]
        topics = [stream.topic for stream in streams]
        if twice := sorted({topic for topic in topics if topics.count(topic) > 1}):
            raise ContractError(f"parameter topics has {', '.join(twice)} twice; once is enough")
        self._session = RecordingSession(
            Path(self.params.folder), streams, contract,
            queue_size=self.params.queue_size, flush_period_s=self.params.flush_period_s,
        )  # fmt: skip
        self._required = [self.resolve_topic_name(topic) for topic in self.params.required]
        if unknown := sorted(set(self._required) - set(topics)):
            raise ContractError(f"parameter required has {unknown}, which `topics` does not record")
        self._meter = QualityMeter(topics, self._required, contract)
        self._measure = [self._measured(index, s, contract) for index, s in enumerate(streams)]
        for sentence in self._session.recover(recover):
            self.get_logger().warning(sentence)
        self._connect(streams)
        self.get_logger().info(
            f"{self._session.num_in_folder()} episodes in {self._session.folder.resolve()}"
        )

    def start(self) -> None:
        """Begin to report; recording starts with ~/start."""
        self._timer = self.create_timer(1.0 / self.params.state_rate_hz, self._look)

    def stop(self) -> None:
        """Save the open episode, marked as interrupted."""
        self.destroy_timer(self._timer)
        if self._session.file is not None:
            path = self._session.stop(save=True, outcome="interrupted", now_s=self.now_s())()
            self.get_logger().warning(f"{path.name}: the recorder was stopped during the episode")
        self._publish_state()

    def may_shut_down(self) -> bool:
        """Return whether no episode is being closed: one that is would be left as an interrupted `.part`."""
        return not self._closing

    def unfinished(self) -> str:
        """Say what becomes of an episode that is still being closed."""
        what = "the last episode stays a .part file, which the next start recovers"
        return what if self._closing else ""

    def teardown(self) -> None:
        """Forget the session."""
        self._session = None

    def health(self) -> Health:
        """A silent topic and drops are worth a warning, a failing disk an error."""
        session = self._session
        file = session.file
        values = {"saved": session.num_saved, "discarded": session.num_discarded}
        if file is None:
            return Health(OK, "idle", values)
        now_s, dropped = self.now_s(), sum(file.num_dropped)
        values |= {"dropped": dropped, **self._meter.quality(now_s).to_figures()}
        if file.failure:
            return Health(ERROR, file.failure, values)
        silent = session.silent_topics(self._required, now_s)
        problems = [f"nothing is heard on {silent}"] if silent else []
        problems += [f"{dropped} messages dropped: the disk is too slow"] if dropped else []
        text = "; ".join(problems) or f"recording {session.episode_id}"
        return Health(WARN if problems else OK, text, values)

    def _connect(self, streams: list[Stream]) -> None:
        """Make subscriptions, publishers and services."""
        for index, stream in enumerate(streams):
            profile = qos.RECORDED_DEVICE if stream.type_name in DEVICES else qos.RECORDED
            callback = partial(self._on_message, index)
            kind = message_class(stream.type_name)
            self.create_subscription(kind, stream.topic, callback, profile, raw=True)
        self._publisher = self.create_lifecycle_publisher(
            RecorderState, "recorder_state", qos.STATE
        )
        self._quality_publisher = self.create_lifecycle_publisher(
            DiagnosticStatus, "recorder_quality", qos.STATE
        )
        self.create_service(StartEpisode, "~/start", self._start_episode)
        self.create_service(StopEpisode, "~/stop", self._stop_episode)

    def _stream(self, line: str) -> Stream:
        words = line.split()
        if len(words) != 2 or words[1].count("/") != 2:
            raise ContractError(
                f"parameter topics has {line!r}; allowed is `topic package/msg/Type`"
            )
        return Stream(
            topic=self.resolve_topic_name(words[0]),
            type_name=words[1],
            schema=schema_text(words[1]),
        )

    def _measured(
        self, index: int, stream: Stream, contract: RobotContract
    ) -> Callable[[bytes, float], None]:
        """Return what the meter does with a message of a stream, beyond counting it."""
        meter, kind = self._meter, message_class(stream.type_name)
        if kind is DeltaMsg:
            return lambda data, now_s: meter.delta(deserialize_message(data, kind), now_s)
        if kind is ArmState:
            return lambda data, now_s: meter.arm_state(deserialize_message(data, kind), now_s)
        cameras = [f"/{camera.topic}/image_raw" for camera in contract.cameras.values()]
        if stream.type_name in PICTURES and stream.topic.removesuffix("/compressed").endswith(
            tuple(cameras)
        ):
            return lambda data, _: meter.frame(index, to_seconds(header_stamp(data)))
        return lambda data, now_s: None

    def _on_message(self, index: int, data: bytes) -> None:
        now_ns = self.get_clock().now().nanoseconds
        self._session.write(index, data, now_ns)
        if self._session.file is not None:
            self._meter.heard(index, now_ns * 1e-9)
            self._measure[index](data, now_ns * 1e-9)

    def _start_episode(
        self, request: StartEpisode.Request, response: StartEpisode.Response
    ) -> StartEpisode.Response:
        try:
            if not self.active or self._closing:
                raise DataError(
                    "the recorder is closing an episode"
                    if self._closing
                    else "the recorder is not active"
                )
            response.episode_id = self._session.start(
                request.instruction,
                request.operator_name,
                request.metadata_json,
                self.now_s(),
                self._required,
            )
            self._meter.begin(self.now_s())
            response.ok = True
        except (DataError, OSError) as error:
            self._session.message = response.message = str(error)
            self.get_logger().error(f"not recording: {error}")
        self._publish_state()
        return response

    async def _stop_episode(
        self, request: StopEpisode.Request, response: StopEpisode.Response
    ) -> StopEpisode.Response:
        """Finish the file in a thread: a slow disk must not stall the node."""
        try:
            finish = self._session.stop(request.save, request.outcome, self.now_s())
        except DataError as error:  # the episode before may still be closing
            response.message = str(error)
            self.get_logger().error(response.message)
            return response
        self._closing = True
        self._publish_state()
        try:
            path = await in_thread(self, finish)
            response.ok, response.path = True, str(path.resolve()) if path else ""
        except (DataError, OSError) as error:
            self._session.message = response.message = str(error)
            self.get_logger().error(str(error))
        self._closing = False
        self._publish_state()
        return response

    def _look(self) -> None:
        """End the open episode while there is room to end it well; then report."""
        session = self._session
        if session.file is not None and (problem := session.space_problem(RESERVED_BYTES)):
            finish = session.stop(save=True, outcome="interrupted", now_s=self.now_s())
            session.message = f"the episode was ended: {problem}"
            self.get_logger().error(session.message)
            self._closing = True
            in_thread(self, finish).add_done_callback(self._ended)
        self._publish_state()

    def _ended(self, future: Future) -> None:
        self._closing = False
        if future.exception() is not None:
            self._session.message = str(future.exception())
            self.get_logger().error(self._session.message)
        self._publish_state()

    def _publish_state(self) -> None:
        session = self._session
        file = session.file
        recording = RecorderState.STATE_RECORDING if file else RecorderState.STATE_IDLE
        now_s = self.now_s()
        state = RecorderState(
            state=RecorderState.STATE_CLOSING if self._closing else recording,
            episode_id=session.episode_id, instruction=session.instruction, elapsed_s=session.elapsed_s(now_s),
            num_saved=session.num_saved, num_discarded=session.num_discarded,
            num_in_folder=session.num_in_folder(), num_wanted=self.params.num_wanted, message=session.message,
        )  # fmt: skip
        state.header.stamp = to_stamp(now_s)
        state.topics = [stream.topic for stream in session.streams]
        if file is not None:
            state.size_bytes, state.message = file.size_bytes, file.failure or session.message
            state.num_written, state.num_dropped = list(file.num_written), list(file.num_dropped)
            name = self.get_fully_qualified_name()
            status = status_message(name, session.episode_id, self.health())
            self._quality_publisher.publish(status)
        self._publisher.publish(state)


def main() -> None:
    """Run the node."""
    sys.exit(run(RecorderNode))


if __name__ == "__main__":
    main()
