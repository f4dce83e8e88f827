# SPDX-License-Identifier: Apache-2.0
"""Chosen pictures of recordings: the right ones of the right topic, and no chunk but theirs is read."""

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType, IndexType, Writer

from lapa_core.data.index import IndexConfig, build_index
from lapa_core.data.mcap_source import McapSource
from lapa_core.errors import DataError
from tests.data.conftest import (
    COMPRESSED,
    RAW,
    cdr_encoder,
    definition,
    index_of,
    png,
    time_of,
)


def rewrite(source, target, **options):
    """Copy a recording with another writer's habits."""
    with source.open("rb") as stream, target.open("wb") as out:
        writer = Writer(out, **{"chunk_size": 8192, **options})
        writer.start(profile="ros2")
        channels = {}
        for schema, channel, message in make_reader(stream).iter_messages(log_time_order=False):
            if channel.id not in channels:
                number = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = writer.register_channel(channel.topic, "cdr", number)
            times = (message.publish_time, message.sequence)
            writer.add_message(channels[channel.id], message.log_time, message.data, *times)
        writer.finish()
    return target


@pytest.fixture
def recording(tmp_path, plan):
    (tmp_path / "in").mkdir()
    path = plan.write(tmp_path / "a.mcap")
    return lambda **options: rewrite(path, tmp_path / "in/a.mcap", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": CompressionType.NONE}, {"compression": CompressionType.ZSTD},
        {"compression": CompressionType.LZ4}, {"use_chunking": False}, {"index_types": IndexType.NONE},
        {"index_types": IndexType.CHUNK}, {"repeat_channels": False}, {"use_statistics": False},
    ],
    ids=str,
)  # fmt: skip
def test_pictures_of_recordings(tmp_path, recording, stamps, options):
    recording(**options)
    index = index_of(tmp_path / "in", tmp_path / "out")
    (clip,) = index.clips
    numbers = [17, 3, 30, 4]
    assert stamps.read_all(index.read(clip, numbers, 64)) == numbers
    assert stamps.read_all(index.read(clip, np.arange(len(clip)), 64)) == list(range(len(clip)))


def test_only_wanted_chunks_are_read(tmp_path, recording, stamps):
    """A file that was damaged after the scan serves what is still whole, and refuses the rest."""
    path = recording(compression=CompressionType.NONE)
    index = index_of(tmp_path / "in", tmp_path / "out")
    data = bytearray(path.read_bytes())
    with path.open("rb") as stream:
        chunks = make_reader(stream).get_summary().chunk_indexes
    data[chunks[-1].chunk_start_offset + 200] ^= 0xFF
    path.write_bytes(data)
    assert stamps.read_all(index.read(index.clips[0], [1, 2], 64)) == [1, 2]
    with pytest.raises(DataError, match="cut short or damaged"):
        index.read(index.clips[0], np.arange(len(index.clips[0])), 64)


def test_chunk_that_its_index_does_not_describe_is_refused(tmp_path, recording):
    """A picture that went to another channel, in a file without checksums."""
    path = recording(enable_crcs=False, compression=CompressionType.NONE)
    with path.open("rb") as stream:
        messages = make_reader(stream).iter_messages(log_time_order=False)
        pictures = [message for _, channel, message in messages if "image" in channel.topic]
    data = bytearray(path.read_bytes())
    channel_at = data.index(pictures[5].data) - 22
    data[channel_at : channel_at + 2] = (pictures[5].channel_id % 3 + 1).to_bytes(2, "little")
    index = index_of(tmp_path / "in", tmp_path / "out")
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"holds \d+ pictures, the file's own index says"):
        index.read(index.clips[0], [6], 64)


def test_recording_that_changed_is_refused(tmp_path, recording, plan):
    path = recording()
    index = index_of(tmp_path / "in", tmp_path / "out")
    plan.steps = 4
    plan.write(path)
    with pytest.raises(DataError, match=r"holds \d+ pictures of .*, the index says"):
        index.read(index.clips[0], [1], 64)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match="cut short or damaged"):
        index.read(index.clips[0], [1], 64)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        index.read(index.clips[0], [1], 64)


DEPTH, COLOUR = "/camera/aligned_depth/image_raw", "/camera/color/image_raw"


def write_topics(path, kind, text, topics):
    """Write a recording of six messages of each topic; `topics` gives the fields beside the header."""
    encode = cdr_encoder(f"sensor_msgs/msg/{kind}", definition("", text))
    path.parent.mkdir()
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start(profile="ros2")
        content = definition("", text).encode()
        schema = writer.register_schema(f"sensor_msgs/msg/{kind}", "ros2msg", content)
        channels = {topic: writer.register_channel(topic, "cdr", schema) for topic in topics}
        for number in range(6):
            header = {"stamp": time_of(10 + number / 10), "frame_id": "camera"}
            for topic, fields in topics.items():
                data = encode({"header": header, **fields(number)})
                writer.add_message(channels[topic], number, data, number, number)
        writer.finish()
    return path.parent


def raw(image, encoding):
    size = {"height": len(image), "width": image.shape[1], "step": image[0].size}
    return {**size, "encoding": encoding, "is_bigendian": 0, "data": image.tobytes()}


def test_depth_is_not_taken_for_the_camera(tmp_path, stamps):
    topics = {
        DEPTH: lambda number: raw(stamps.draw(number)[..., :2], "16UC1"),
        COLOUR: lambda number: raw(stamps.draw(number), "rgb8"),
    }
    folder = write_topics(tmp_path / "in/a.mcap", "Image", RAW, topics)
    index = index_of(folder, tmp_path / "out")
    assert index.clips[0].address == COLOUR
    assert stamps.read_all(index.read(index.clips[0], [4, 1], 64)) == [4, 1]
    assert stamps.read_all(McapSource(folder).episode(0).frames) == list(range(6))
    config = IndexConfig(data=folder, out=tmp_path / "depth", camera="aligned_depth", workers=1)
    with pytest.raises(DataError, match="encoding '16UC1' is not read"):
        build_index(config)


def test_a_damaged_picture_does_not_change_the_camera(tmp_path, stamps):
    """Of two cameras the first by name is taken, also where its first picture is damaged."""
    depth = {"format": "16UC1; compressedDepth png", "data": b"depth"}
    topics = {
        "/a/depth": lambda number: depth,
        "/front": lambda number: {"format": "png", "data": png(stamps.draw(number)) if number else b"cut"},
        "/wrist": lambda number: {"format": "png", "data": png(stamps.draw(10 + number))},
    }  # fmt: skip
    folder = write_topics(tmp_path / "in/a.mcap", "CompressedImage", COMPRESSED, topics)
    index = index_of(folder, tmp_path / "out")
    assert index.clips[0].address == "/front"
    assert stamps.read_all(index.read(index.clips[0], [4, 1], 64)) == [4, 1]
    with pytest.raises(DataError, match="a picture of format 'png' cannot be decoded"):
        index.read(index.clips[0], [0], 64)
