# SPDX-License-Identifier: Apache-2.0
"""Frames that carry their own number, so that a wrong frame cannot look right."""

import os
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


class Stamps:
    """The two functions above, and whole clips."""

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
    av = pytest.importorskip("av")

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


@pytest.fixture(scope="session")
def bridge_path():
    """The BridgeData V2 excerpts, which are not part of the repository."""
    root = Path(os.environ.get("LAPA_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    path = root / "bridge_v2_sample"
    if not path.is_dir():
        pytest.skip(f"no Bridge sample at {path}; set LAPA_SHARED_DATA to the folder that holds it")
    return path


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
