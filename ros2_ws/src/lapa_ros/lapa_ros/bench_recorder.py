# SPDX-License-Identifier: Apache-2.0
"""`lapa bench recorder`: what recording costs, and what a killed recorder loses, over real DDS.

The recorder is a process of its own; two cameras of JPEG pictures, joint states and arm states are published at full
rate from here. Sent and written messages are compared one by one, by their stamps.
"""

from __future__ import annotations

import array
import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from lapa_msgs.msg import ArmState, EndEffectorDelta
from lapa_msgs.srv import StartEpisode, StopEpisode
from PIL import Image
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, JointState
from tqdm import tqdm

from lapa_core.data.mcap_episode import recover
from lapa_core.errors import ContractError
from lapa_ros import qos
from lapa_ros.bench_graph import node_process, spun
from lapa_ros.clock import header_stamp
from lapa_ros.remote import GraphError, call

CAMERAS = ("camera/front/image_raw/compressed", "camera/wrist/image_raw/compressed")
TOPICS = (
    *(f"{name} sensor_msgs/msg/CompressedImage" for name in CAMERAS),
    "joint_states sensor_msgs/msg/JointState",
    "arm_state lapa_msgs/msg/ArmState",
    "delta lapa_msgs/msg/EndEffectorDelta",
)
_CAMERA_HZ, _JOINTS_HZ, _ARM_HZ, _DELTA_HZ = 30.0, 100.0, 20.0, 5.0
_MARGIN_S = 0.5
"""Messages this close to the start or the stop of an episode may belong to either side [s]."""


@dataclass(frozen=True, kw_only=True)
class BenchRecorderConfig:
    """Two cameras of 640 x 480 at 30 Hz, joints at 100 Hz, arm states at 20 Hz, deltas at 5 Hz; then kill recorders."""

    seconds: float = 60.0
    """Length of the recording [s]."""
    kills: int = 20
    """Episodes whose recorder is killed (SIGKILL) at a random moment."""
    seed: int = 0
    """Seed of these moments."""

    def __post_init__(self) -> None:
        if self.seconds < 2.0 or self.kills < 0:
            raise ContractError(
                f"seconds is {self.seconds} and kills {self.kills}; at least 2 s and 0 kills are needed"
            )


class _Rig(Node):
    """Publishes everything at full rate, remembers every stamp, and speaks to the recorder."""

    def __init__(self) -> None:
        super().__init__("bench_recorder")
        self.sent_ns: dict[str, list[int]] = {}
        self.start_client = self.create_client(StartEpisode, "recorder/start")
        self.stop_client = self.create_client(StopEpisode, "recorder/stop")
        picture = _picture()
        for name in CAMERAS:
            message = CompressedImage(format="rgb8; jpeg compressed")
            message.data = array.array("B", picture)
            self._every(_CAMERA_HZ, CompressedImage, name, message, qos.CAMERA)
        joints = JointState(name=["waist", "shoulder", "elbow"], position=[0.0, 0.1, 0.2])
        self._every(_JOINTS_HZ, JointState, "joint_states", joints, qos.JOINT_STATES)
        state, delta = ArmState(), EndEffectorDelta(source="operator", gripper=1.0)
        self._every(_ARM_HZ, ArmState, "arm_state", state, qos.STATE)
        self._every(
            _DELTA_HZ, EndEffectorDelta, "delta", delta, qos.DELTA, partial(_command, delta, state)
        )

    def _every(
        self, rate_hz: float, kind: Any, topic: str, message: Any, profile: Any,
        change: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        publisher = self.create_publisher(kind, topic, profile)
        sent = self.sent_ns.setdefault(self.resolve_topic_name(topic), [])

        def send() -> None:
            change()
            now = self.get_clock().now()
            message.header.stamp = now.to_msg()
            publisher.publish(message)
            sent.append(now.nanoseconds)

        self.create_timer(1.0 / rate_hz, send)

    def begin(self) -> None:
        """Start an episode as soon as the recorder hears the topics; DDS may still offer one that was killed."""
        request = StartEpisode.Request(instruction="bench", operator_name="bench")
        for attempt in range(100):
            try:
                call(self.start_client, request, timeout_s=2.0)
                return
            except GraphError as error:
                if "is open" in str(error):  # by the request before, whose answer was late
                    return
                if attempt == 99:
                    raise
                time.sleep(0.1)

    def save(self) -> Path:
        """Save the episode and return its file."""
        request = StopEpisode.Request(save=True, outcome="success")
        return Path(call(self.stop_client, request, timeout_s=60.0).path)


def _command(delta: EndEffectorDelta, state: ArmState) -> None:
    """Make the next delta, which the next arm state confirms."""
    delta.sequence += 1
    state.last_applied_source, state.last_applied_sequence = delta.source, delta.sequence
    state.applied += 1


def _picture() -> bytes:
    """Return a JPEG of 640 x 480 px of about the size that a camera's has (75 kB)."""
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)
    image.save(stream := io.BytesIO(), "JPEG", quality=55)
    return stream.getvalue()


def _recorder(folder: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    params = {"folder": str(folder), "topics": json.dumps(TOPICS), "required": "[joint_states]"}
    return node_process("lapa_ros.recorder_node", params)


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process so far [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _written_ns(path: Path) -> dict[str, np.ndarray]:
    """Return the header stamp of every message of a file, by topic [ns]."""
    from mcap.reader import make_reader

    stamps: dict[str, list[int]] = {}
    with path.open("rb") as stream:
        for _, channel, message in make_reader(stream).iter_messages():
            stamp = header_stamp(message.data)
            stamps.setdefault(channel.topic, []).append(stamp.sec * 10**9 + stamp.nanosec)
    return {topic: np.array(values) for topic, values in stamps.items()}


def measure_load(rig: _Rig, folder: Path, seconds: float) -> dict[str, Any]:
    """Record for some time; return what was lost and what it cost."""
    with _recorder(folder) as process:
        rig.begin()
        before_s, begin_s, begin_ns = _cpu_s(process.pid), time.monotonic(), time.time_ns()
        for _ in tqdm(range(round(seconds)), desc="recording", unit="s"):
            time.sleep(1.0)
        cpu_s, wall_s = _cpu_s(process.pid) - before_s, time.monotonic() - begin_s
        end_ns = time.time_ns()
        path = rig.save()
    low, high = begin_ns + _MARGIN_S * 1e9, end_ns - _MARGIN_S * 1e9
    written = _written_ns(path)
    sent = {topic: [n for n in list(ns) if low < n < high] for topic, ns in rig.sent_ns.items()}
    none = np.zeros(0, dtype=np.int64)
    lost = {
        topic: len(set(ns) - set(written.get(topic, none).tolist())) for topic, ns in sent.items()
    }
    return {
        "seconds": round(wall_s, 1),
        "sent": {topic: len(ns) for topic, ns in sent.items()},
        "lost": lost,
        "core_share": round(cpu_s / wall_s, 4),
        "megabytes": round(path.stat().st_size / 1e6, 1),
    }


def measure_kill(rig: _Rig, folder: Path, moment_s: float) -> float:
    """Kill a recorder in mid-episode, recover the file, and return how much of its end is missing [s]."""
    with _recorder(folder) as process:
        rig.begin()
        time.sleep(moment_s)
        process.send_signal(signal.SIGKILL)
        killed_ns = time.time_ns()
    (part,) = folder.glob("*.mcap.part")
    newest_ns = max(int(stamps.max()) for stamps in _written_ns(recover(part)).values())
    return (killed_ns - newest_ns) * 1e-9


def measure(config: BenchRecorderConfig) -> dict[str, Any]:
    """Run everything in a ROS domain of its own and return the figures."""
    with TemporaryDirectory(prefix="lapa_bench_recorder_") as name, spun(_Rig) as rig:
        folder = Path(name)
        load = measure_load(rig, folder / "load", config.seconds)
        moments_s = np.random.default_rng(config.seed).uniform(0.2, 3.0, config.kills)
        lost_s = [
            measure_kill(rig, folder / f"kill_{number}", float(moment_s))
            for number, moment_s in enumerate(tqdm(moments_s, desc="killing", unit="recorder"))
        ]
    kills = {"count": len(lost_s), "lost_s_max": round(max(lost_s, default=0.0), 3)}
    kills["lost_s_mean"] = round(float(np.mean(lost_s)), 3) if lost_s else 0.0
    return {"bench": "recorder", "config": asdict(config), "load": load, "kills": kills}


def main(config: BenchRecorderConfig) -> None:
    """Measure, and print one JSON object on the last line."""
    print(json.dumps(measure(config)))
