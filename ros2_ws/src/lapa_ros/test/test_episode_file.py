# SPDX-License-Identifier: Apache-2.0
"""The file of one episode, without ROS: drops are counted, a failing disk is told."""

import resource
import threading
import time
from contextlib import contextmanager

import pytest
from lapa_ros.episode_file import EpisodeFile, Stream
from lapa_ros.schema import message_class, schema_text
from mcap.reader import make_reader

from lapa_core.errors import DataError

STREAM = Stream(topic="/t", type_name="std_msgs/msg/String", schema="string data")


def open_file(folder, **changes):
    options = {"queue_size": 8, "flush_period_s": 0.05, **changes}
    return EpisodeFile(folder, "ep_1", [STREAM], {"instruction": "push"}, **options)


def count(path):
    with path.open("rb") as stream:
        return sum(1 for _ in make_reader(stream).iter_messages())


def test_messages_are_written_or_counted_as_dropped(tmp_path):
    file = open_file(tmp_path)
    gate = threading.Event()
    real = file._writer.add_message
    file._writer.add_message = lambda *arguments: (gate.wait(5.0), real(*arguments))
    for index in range(50):
        file.write(0, b"x" * 100, 1000 + index)
    gate.set()
    path = file.finish(lambda: {"outcome": "success"})
    assert file.num_dropped[0] > 0
    assert file.num_written[0] + file.num_dropped[0] == 50
    assert count(path) == file.num_written[0]
    assert [item.name for item in tmp_path.iterdir()] == ["ep_1.mcap"]


@pytest.mark.parametrize("kind", [OSError, ValueError])
def test_a_failing_disk_keeps_the_part_and_says_so(tmp_path, kind):
    file = open_file(tmp_path)

    def full(*_):
        raise kind("No space left on device")

    file._writer.add_message = full
    begun_s = time.monotonic()
    file.write(0, b"x", 1)
    while file.failure is None:
        assert time.monotonic() - begun_s < 1.0
        time.sleep(0.001)
    print(f"failing disk: noticed after {time.monotonic() - begun_s:.3f} s")
    with pytest.raises(DataError, match="No space left"):
        file.finish(lambda: {})
    assert [item.name for item in tmp_path.iterdir()] == ["ep_1.mcap.part"]


@contextmanager
def full_disk(size):
    """Make every file of this process end at a size, as on a disk that is full: pytest's own output, too, meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_full_disk_cut_off_can_be_discarded(tmp_path):
    file = open_file(tmp_path)
    with full_disk(file.size_bytes + 500):
        file.write(0, b"x" * 3000, 1000)
        end_s = time.monotonic() + 10.0
        while file.failure is None:
            assert time.monotonic() < end_s
            time.sleep(0.01)
        file.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_from_the_start_is_said_and_nothing_is_left(tmp_path):
    with full_disk(10), pytest.raises(DataError, match="cannot record"):
        open_file(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_episode_is_never_overwritten(tmp_path):
    file = open_file(tmp_path)
    with pytest.raises(DataError, match="cannot record"):
        open_file(tmp_path)
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_schemas_hold_every_type_inside():
    text = schema_text("lapa_msgs/msg/ArmState")
    for name in (
        "std_msgs/Header",
        "geometry_msgs/Pose",
        "geometry_msgs/Quaternion",
        "builtin_interfaces/Time",
    ):
        assert f"MSG: {name}\n" in text
    assert message_class("lapa_msgs/msg/ArmState").MODE_HOLDING == 1
