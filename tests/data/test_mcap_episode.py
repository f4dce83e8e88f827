# SPDX-License-Identifier: Apache-2.0
"""Reading recordings, and rescuing those whose recorder was killed."""

import contextlib
import fcntl

import numpy as np
import pytest
from mcap.writer import CompressionType, Writer

from lapa_core.data.mcap_episode import (
    read_picture_topics,
    read_pictures,
    read_recording,
    recover,
)
from lapa_core.errors import DataError

TOPIC = "/camera/front/image_raw"


def test_recording_is_read(tmp_path, plan, stamps):
    recording = read_recording(plan.write(tmp_path / "a.mcap"))
    assert recording.metadata["instruction"] == plan.instruction
    assert recording.metadata["outcome"] == "success"  # the last record counts
    assert [m.sequence for m in recording.deltas] == list(range(5, 15))
    assert recording.arm_states[-1].applied == 10
    compressed = f"{TOPIC}/compressed"
    pictures_s = recording.picture_stamps_s[compressed]
    np.testing.assert_allclose(pictures_s[:3], plan.start_s - 0.1 + np.arange(3) / 20, atol=1e-8)
    pictures = read_pictures(recording.path, compressed, [3, 7])
    assert {i: stamps.read(p) for i, p in pictures.items()} == {3: 3, 7: 7}


@pytest.mark.parametrize("encoding", ["bgr8"])
def test_raw_pictures_with_row_padding_are_read(tmp_path, plan, stamps, encoding):
    plan.encoding = encoding
    path = plan.write(tmp_path / "a.mcap")
    assert stamps.read(read_pictures(path, TOPIC, [2])[2]) == 2


def test_unknown_encoding_is_refused(tmp_path, plan):
    plan.encoding = "bayer_rggb8"
    path = plan.write(tmp_path / "a.mcap")
    with pytest.raises(DataError, match=r"bayer_rggb8.*allowed are"):
        read_pictures(path, TOPIC, [0])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.98])
def test_killed_recording_is_refused_and_recovered(tmp_path, plan, share):
    """Cut an unfinished file anywhere: every chunk that is whole comes back."""
    part = plan.write(tmp_path / "a.mcap.part", finish=False)
    whole = len(plan.events())
    part.write_bytes(part.read_bytes()[: int(part.stat().st_size * share)])
    with pytest.raises(DataError, match="cut short or damaged"):
        read_recording(part)
    target = recover(part)
    assert target == tmp_path / "a.mcap"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mcap"]
    recording = read_recording(target)
    assert recording.metadata["instruction"] == plan.instruction
    assert recording.metadata["outcome"] == "interrupted"
    assert recording.metadata["recovered"] is True
    found = len(recording.deltas) + len(recording.arm_states)
    found += sum(map(len, recording.picture_stamps_s.values()))
    # A flush closes a chunk each 20 messages, so at most one such group is lost to the cut.
    assert whole * share - 45 <= found < whole


def test_recovered_file_has_an_index(tmp_path, plan):
    from mcap.reader import make_reader

    target = recover(plan.write(tmp_path / "a.mcap.part", finish=False))
    with target.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary.statistics.message_count == len(plan.events())


def test_recovery_refuses_what_it_would_destroy(tmp_path, plan):
    part = plan.write(tmp_path / "a.mcap.part", finish=False)
    (tmp_path / "a.mcap").write_text("precious")
    with pytest.raises(DataError, match="exists already"):
        recover(part)
    assert part.is_file()
    with pytest.raises(DataError, match=r"\.mcap\.part is needed"):
        recover(tmp_path / "a.mcap")


def test_a_recording_under_way_is_left_alone(tmp_path, plan):
    part = plan.write(tmp_path / "a.mcap.part", finish=False)
    before = part.read_bytes()
    with part.open("rb") as recorder:
        fcntl.flock(recorder, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="running recorder"):
            recover(part)
    assert part.read_bytes() == before
    recover(part)


def test_nothing_to_recover_is_said(tmp_path, plan):
    part = plan.write(tmp_path / "a.mcap.part", finish=False)
    part.write_bytes(part.read_bytes()[:400])
    with pytest.raises(DataError, match="no complete message"):
        recover(part)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mcap.part"]


def test_damaged_chunk_is_refused(tmp_path, plan):
    path = plan.write(tmp_path / "a.mcap")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        read_recording(path)


@pytest.mark.parametrize("compression", [CompressionType.ZSTD, CompressionType.LZ4])
def test_damaged_compressed_chunk_is_refused(tmp_path, compression):
    """As rosbag2 compresses; the decompressors raise errors of their own kinds."""
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream, compression=compression)
        writer.start()
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
        channel = writer.register_channel("/camera", "cdr", schema)
        noise = np.random.default_rng(0).integers(0, 9, 9000, dtype=np.uint8).tobytes()
        writer.add_message(channel, 0, noise, 0)
        writer.finish()
    assert len(read_picture_topics(path).stamps_s["/camera"]) == 1
    whole, refused = path.read_bytes(), 0
    for place in range(200, 3200, 100):
        data = bytearray(whole)
        data[place] ^= 0xFF
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read_picture_topics(path)
            continue
        refused += 1
    assert refused > 20


def test_foreign_file_is_refused(tmp_path):
    (tmp_path / "a.mcap").write_text("hello, this is no recording at all")
    with pytest.raises(DataError, match="cut short or damaged"):
        read_recording(tmp_path / "a.mcap")
