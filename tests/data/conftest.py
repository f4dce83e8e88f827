# SPDX-License-Identifier: Apache-2.0
"""Frames that carry their own number, so that a wrong frame cannot look right."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_GRID = 4


def stamp(number, size_px=64):
    """A picture of 4 x 4 blocks: the bits of a number, readable after any lossy codec."""
    bits = (number >> np.arange(_GRID * _GRID)) & 1
    blocks = np.where(bits.reshape(_GRID, _GRID), 220, 30).astype(np.uint8)
    return np.repeat(np.kron(blocks, np.ones((size_px // _GRID,) * 2, np.uint8))[..., None], 3, 2)


def read_stamp(image):
    """The number that `stamp` drew."""
    cell = image.shape[0] // _GRID
    centres = image[cell // 2 :: cell, cell // 2 :: cell, 0]
    return int(((centres > 127).ravel() << np.arange(_GRID * _GRID)).sum())


def png(image):
    """A picture as the bytes of a PNG file."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def index_of(data, out):
    """The index of a data folder, made in this process."""
    from lapa_core.data.index import IndexConfig, build_index

    return build_index(IndexConfig(data=data, out=out, workers=1, progress=False))


class Stamps:
    """Drawing and reading stamps, and whole clips of them."""

    draw = staticmethod(stamp)
    read = staticmethod(read_stamp)

    @staticmethod
    def clip(first, count, size_px=64):
        return np.stack([stamp(first + k, size_px) for k in range(count)])

    @staticmethod
    def read_all(frames):
        return [read_stamp(frame) for frame in frames]


@pytest.fixture(scope="session")
def stamps():
    return Stamps


@pytest.fixture(scope="session")
def write_video():
    """Write frames at given times [s], in any container and codec."""
    import av

    def write(path, frames, times_s, codec="libx264", options=None):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=30)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            stream.options = options or {}
            for frame, time_s in zip(frames, times_s, strict=True):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                picture.pts, picture.time_base = round(time_s * 1000), Fraction(1, 1000)
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))

    return write


@pytest.fixture
def make_set(tmp_path, stamps):
    """Write a small LeRobot set whose frame k of episode e is stamped 16 * e + k."""
    from lapa_core.actions.delta import ACTION_NAMES
    from lapa_core.data.lerobot import LeRobotWriter
    from lapa_core.data.lerobot_format import make_features

    def make(name="set", lengths=(6, 9, 4), cameras=("front",), first_episode=0):
        features = make_features(
            dict.fromkeys(cameras, (64, 64)),
            action_names=ACTION_NAMES,
            state_names=ACTION_NAMES,
            extra={"observation.capture_time": ("float64", 1)},
        )
        writer = LeRobotWriter(tmp_path / name, fps=5, features=features, robot_type="wx250s")
        for number, length in enumerate(lengths, start=first_episode):
            rows = np.arange(length * 7).reshape(length, 7) / 1000 + number
            writer.add_episode(
                {
                    camera: stamps.clip(16 * number + 4096 * place, length)
                    for place, camera in enumerate(cameras)
                },
                instruction=f"task {number % 2}",
                actions=rows,
                states=rows + 10,
                extra={"observation.capture_time": 100.0 + np.arange(length) * 0.21},
                source=f"made {number}",
            )
        return tmp_path / name

    return make


HEADER = "builtin_interfaces/Time stamp\nstring frame_id"
INNER = {
    "std_msgs/Header": HEADER,
    "builtin_interfaces/Time": "int32 sec\nuint32 nanosec",
    "geometry_msgs/Vector3": "float64 x\nfloat64 y\nfloat64 z",
    "geometry_msgs/Point": "float64 x\nfloat64 y\nfloat64 z",
    "geometry_msgs/Quaternion": "float64 x 0\nfloat64 y 0\nfloat64 z 0\nfloat64 w 1",
    "geometry_msgs/Pose": "Point position\nQuaternion orientation",
}
COMPRESSED = "std_msgs/Header header\nstring format\nuint8[] data"
RAW = (
    "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\n"
    "uint8 is_bigendian\nuint32 step\nuint8[] data"
)


def definition(name, text=None):
    """A `ros2msg` schema text; lapa_msgs are read from the workspace, so they cannot drift."""
    if text is None:
        text = (REPOSITORY / "ros2_ws/src/lapa_msgs/msg" / f"{name}.msg").read_text()
    parts = [text]
    for inner, content in INNER.items():
        parts.append(f"{'=' * 80}\nMSG: {inner}\n{content}")
    return "\n".join(parts)


def time_of(stamp_s):
    nanoseconds = round(stamp_s * 1e9)
    return {"sec": nanoseconds // 10**9, "nanosec": nanoseconds % 10**9}


class RecordingPlan:
    """One recorded episode: 5 Hz deltas, 20 Hz arm states, 20 Hz pictures, as the nodes publish."""

    def __init__(self, contract):
        self.start_s = 1000.0
        self.steps = 10
        self.period_s = 0.2
        self.outcome = "success"
        self.instruction = "push the red block to the left"
        self.contract_name = contract.name
        self.contract_hash = self.arm_hash = contract.hash
        self.camera_rate_hz = 20.0
        self.camera_offset_s = 0.0
        self.camera_until_s = 1e9
        self.camera_gap_s = (0.0, 0.0)
        self.size_px = contract.cameras["front"].width_px
        self.encoding = "jpeg"
        self.refused = ()
        self.unrecorded = ()
        self.arm_state = True
        self.namespace = ""
        self.pause_after = {}
        self.rotation_rad = 0.1
        self.answers = True
        self.undefined = ""

    def delta_times(self):
        times, now_s = [], self.start_s
        for step in range(self.steps):
            times.append(now_s)
            now_s += self.period_s + self.pause_after.get(step, 0.0)
        return times

    def delta(self, step, stamp_s):
        return {
            "header": {"stamp": time_of(stamp_s + 0.03), "frame_id": "base_link"},
            "observation_stamp": time_of(stamp_s if self.answers else 0.0),
            "source": "operator",
            "sequence": step + 5,
            "translation": {"x": 0.001 * step, "y": 0.002, "z": -0.003},
            "rotation": {"x": 0.0, "y": 0.0, "z": 0.01 * step},
            "gripper": 1.0 if step % 2 else 0.0,
            "bins": [],
            "contract_hash": self.contract_hash,
        }

    def arm(self, stamp_s, applied):
        """Measured pose: x tells the time, the turn about z is `rotation_rad`."""
        position = {"x": stamp_s - self.start_s, "y": 0.1, "z": 0.2}
        half = self.rotation_rad / 2
        turn = {"x": 0.0, "y": 0.0, "z": np.sin(half), "w": np.cos(half)}
        pose = {"position": position, "orientation": turn}
        return {
            "header": {"stamp": time_of(stamp_s), "frame_id": "base_link"},
            "mode": 2,
            "reason": "",
            "commanded_pose": pose,
            "measured_pose": pose,
            "joint_names": [],
            "commanded_joints": [],
            "measured_joints": [],
            "commanded_gripper": 0.0,
            "measured_gripper": 0.5,
            "last_applied_source": "operator" if applied else "",
            "last_applied_sequence": applied[-1] + 5 if applied else 0,
            "last_latency_s": 0.0,
            "applied": len(applied),
            "refused": 0,
            "last_refusal": "",
            "contract_hash": self.arm_hash,
        }

    def picture(self, number, stamp_s):
        import io

        from PIL import Image

        image = stamp(number, self.size_px)
        header = {"stamp": time_of(stamp_s + self.camera_offset_s), "frame_id": "camera"}
        if self.encoding == "jpeg":
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "JPEG", quality=95)
            return {"header": header, "format": "rgb8; jpeg compressed", "data": stream.getvalue()}
        padded = np.concatenate([image[..., ::-1], np.zeros((*image.shape[:1], 2, 3), np.uint8)], 1)
        size = {"height": self.size_px, "width": self.size_px, "step": padded.shape[1] * 3}
        return {
            "header": header,
            **size,
            "encoding": self.encoding,
            "is_bigendian": 0,
            "data": padded.tobytes(),
        }

    def events(self):
        """(time, topic, message) of everything, in the order of arrival."""
        times = self.delta_times()
        events = [
            (time_s + 0.03, "delta", self.delta(step, time_s))
            for step, time_s in enumerate(times)
            if step not in self.unrecorded
        ]
        end_s = times[-1] + 0.3
        for number in range(round((end_s - self.start_s + 0.1) * 20)):
            now_s = self.start_s - 0.1 + number / 20
            applied = [
                step
                for step, time_s in enumerate(times)
                if time_s + 0.04 <= now_s and step not in self.refused
            ]
            if self.arm_state:
                events.append((now_s, "arm_state", self.arm(now_s, applied)))
        for number in range(int((end_s - self.start_s + 0.1) * self.camera_rate_hz)):
            now_s = self.start_s - 0.1 + number / self.camera_rate_hz
            after_s = now_s - self.start_s
            silent = self.camera_gap_s[0] < after_s < self.camera_gap_s[1]
            if after_s < self.camera_until_s and not silent:
                events.append((now_s + 0.01, "picture", self.picture(number, now_s)))
        return sorted(events, key=lambda event: event[0])

    def write(self, path, finish=True):
        """Write the file as the recorder does: metadata first, flushed chunks, metadata last."""
        import json

        from mcap.writer import CompressionType, Writer

        stream = path.open("wb")
        writer = Writer(stream, chunk_size=64 * 1024, compression=CompressionType.NONE)
        writer.start(profile="ros2", library="test")
        raw = self.encoding != "jpeg"
        kinds = {
            "delta": ("delta", "lapa_msgs/msg/EndEffectorDelta", definition("EndEffectorDelta")),
            "arm_state": ("arm_state", "lapa_msgs/msg/ArmState", definition("ArmState")),
            "picture": (
                f"camera/front/image_raw{'' if raw else '/compressed'}",
                f"sensor_msgs/msg/{'Image' if raw else 'CompressedImage'}",
                definition("", RAW if raw else COMPRESSED),
            ),
        }
        channels, encode = {}, {}
        for kind, (topic, type_name, text) in kinds.items():
            if kind == "arm_state" and not self.arm_state:
                continue
            lines = text.splitlines(keepends=True)
            text = "".join(line for line in lines if line.split()[1:2] != [self.undefined])
            schema = writer.register_schema(type_name, "ros2msg", text.encode())
            channels[kind] = writer.register_channel(f"{self.namespace}/{topic}", "cdr", schema)
            encode[kind] = cdr_encoder(type_name, text)
        metadata = {
            "instruction": self.instruction,
            "operator_name": "tester",
            "outcome": "",
            "contract_name": self.contract_name,
            "contract_hash": self.contract_hash,
        }
        writer.add_metadata("lapa.episode", {"json": json.dumps(metadata)})
        for number, (time_s, kind, message) in enumerate(self.events()):
            stamp_ns = round(time_s * 1e9)
            writer.add_message(channels[kind], stamp_ns, encode[kind](message), stamp_ns, number)
            if number % 20 == 19:
                writer.flush()
        if finish:
            metadata["outcome"] = self.outcome
            writer.add_metadata("lapa.episode", {"json": json.dumps(metadata)})
            writer.finish()
        else:
            writer.flush()
        stream.close()
        return path


def cdr_encoder(type_name, text):
    """Messages as dictionaries to CDR bytes, by the package that ROS tools use outside ROS."""
    import io

    from mcap.reader import NonSeekingReader
    from mcap_ros2.writer import Writer

    def encode(message):
        stream = io.BytesIO()
        writer = Writer(stream)
        writer.write_message("t", writer.register_msgdef(type_name, text), message, log_time=0)
        writer.finish()
        stream.seek(0)
        return next(NonSeekingReader(stream).iter_messages())[2].data

    return encode


@pytest.fixture
def plan():
    from lapa_core.robot.contract import load_contract

    return RecordingPlan(load_contract("wx250s_sim"))
