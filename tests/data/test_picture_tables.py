# SPDX-License-Identifier: Apache-2.0
"""Chosen pictures of LeRobot tables, recordings and RLDS: the right ones, and nothing but them is read."""

import io
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType, IndexType, Writer
from PIL import Image

from lapa_core.data.index import IndexConfig, build_index
from lapa_core.data.kept import Kept
from lapa_core.data.mcap_source import McapSource
from lapa_core.data.rlds import RldsSource
from lapa_core.data.tfrecord import RecordPlace
from lapa_core.errors import DataError
from tests.data.conftest import COMPRESSED, RAW, cdr_encoder, definition, time_of

KEY = "observation.images.front"
LENGTHS = (6, 9, 4)


def index_of(data, out):
    return build_index(IndexConfig(data=data, out=out, workers=1, progress=False))


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


class Tables:
    """A set of three episodes whose pictures lie in one table: picture k of episode e is stamped 16 e + k."""

    def __init__(self, root, stamps, rows_per_group):
        self.root, self.rows_per_group = root, rows_per_group
        info = json.loads((root / "meta/info.json").read_text())
        info["features"][KEY]["dtype"] = "image"
        (root / "meta/info.json").write_text(json.dumps(info))
        (self.file,) = root.glob("data/*/*.parquet")
        self.plain = pq.read_table(self.file)
        numbers = [16 * episode + k for episode, n in enumerate(LENGTHS) for k in range(n)]
        self.cells = [{"bytes": png(stamps.draw(n)), "path": None} for n in numbers]
        self.write()

    def write(self):
        """Write the table, newer than before."""
        later_ns = self.file.stat().st_mtime_ns + 10**9
        table = self.plain.append_column(KEY, pa.array(self.cells))
        pq.write_table(
            table, self.file, row_group_size=self.rows_per_group, write_page_checksum=True
        )
        os.utime(self.file, ns=(later_ns, later_ns))


@pytest.fixture(params=[4, 100])
def tables(request, make_set, stamps):
    """Row groups that divide episodes, and one for all."""
    return Tables(make_set(lengths=LENGTHS), stamps, request.param)


def test_pictures_in_tables(tmp_path, tables, stamps):
    index = index_of(tables.root, tmp_path / "out")
    for number, clip in enumerate(index.clips):
        wanted = np.array([3, 0, 2])
        assert stamps.read_all(index.read(clip, wanted, 64)) == (16 * number + wanted).tolist()


def test_only_wanted_pictures_are_decoded(tmp_path, tables, stamps):
    tables.cells[6 + 5] = {"bytes": b"no picture", "path": None}
    tables.cells[6 + 6] = None
    tables.write()
    index = index_of(tables.root, tmp_path / "out")
    assert stamps.read_all(index.read(index.clips[1], [4, 7], 64)) == [20, 23]
    for number in (5, 6):
        with pytest.raises(DataError, match=f"picture {number} of episode 1 cannot be read"):
            index.read(index.clips[1], [4, number], 64)


def test_pictures_beside_the_table(tmp_path, tables, stamps):
    (tables.root / "images").mkdir()
    (tables.root / "images/0.png").write_bytes(png(stamps.draw(999)))
    tables.cells[2] = {"bytes": None, "path": "images/0.png"}
    tables.write()
    index = index_of(tables.root, tmp_path / "out")
    assert stamps.read_all(index.read(index.clips[0], [1, 2], 64)) == [1, 999]


def test_table_that_changed_is_read_anew_or_refused(tmp_path, tables, stamps):
    index = index_of(tables.root, tmp_path / "out")
    clip = index.clips[2]
    assert stamps.read_all(index.read(clip, [1], 64)) == [33]
    tables.cells[6 + 9 + 1] = {"bytes": png(stamps.draw(777)), "path": None}
    tables.write()
    assert stamps.read_all(index.read(clip, [1], 64)) == [777]
    tables.plain, tables.cells = tables.plain.slice(0, 18), tables.cells[:18]
    tables.write()
    with pytest.raises(DataError, match="3 rows of episode 2, 4 in one piece are needed"):
        index.read(clip, [1], 64)
    tables.file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        index.read(clip, [1], 64)


def test_bits_that_rot_are_refused(tmp_path, tables):
    """Where the decoder would not notice: most bytes of a JPEG may be any."""
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    stream = io.BytesIO()
    grey.save(stream, "JPEG")
    tables.cells[2] = {"bytes": stream.getvalue(), "path": None}
    tables.write()
    index = index_of(tables.root, tmp_path / "out")
    data = bytearray(tables.file.read_bytes())
    data[data.index(stream.getvalue()[1000:1100]) + 50] ^= 0x01
    tables.file.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        index.read(index.clips[0], [2], 64)


def test_episodes_that_the_tables_lack_are_unreadable(tmp_path, tables):
    tables.plain, tables.cells = tables.plain.slice(0, 18), tables.cells[:18]
    tables.write()
    index = index_of(tables.root, tmp_path / "out")
    assert len(index) == 2
    (reason,) = index.facts["unreadable"].values()
    assert "3 rows of episode 2, 4 in one piece are needed" in reason
    pq.write_table(tables.plain, tables.file)
    with pytest.raises(DataError, match=f"first of 3 reasons: .*no column {KEY}"):
        index_of(tables.root, tmp_path / "out")


def test_index_of_an_older_version_is_refused(tmp_path, tables):
    index = index_of(tables.root, tmp_path / "out")
    with pytest.raises(DataError, match="older version; run `lapa data index` again"):
        index.read(replace(index.clips[1], path=".", address="1"), [1], 64)


def test_kept_values_stay_within_their_memory():
    kept, made = Kept(10, len), []

    def get(key, size):
        return kept.get(key, lambda: made.append(key) or "x" * size)

    get("a", 4)
    get("b", 4)
    get("a", 4)
    get("c", 4)  # b was used longest ago
    assert (made, len(kept), kept.num_bytes) == (["a", "b", "c"], 2, 8)
    get("a", 4)
    get("b", 4)
    assert (made, kept.num_bytes) == (["a", "b", "c", "b"], 8)
    assert len(get("large", 50)) == 50
    assert (len(kept), kept.num_bytes) == (1, 50)
    get("a", 4)
    assert (len(kept), kept.num_bytes) == (1, 4)


def test_kept_values_are_made_once_by_many_threads():
    kept, made = Kept(100, len), []

    def make():
        time.sleep(0.01)
        made.append(1)
        return "x"

    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(kept.get, number % 2, make) for number in range(16)]
        assert {future.result() for future in found} == {"x"}
    assert (len(made), kept.num_bytes) == (2, 2)


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


@pytest.fixture
def records(tmp_path, bridge):
    shutil.copytree(bridge, tmp_path / "bridge")
    (file,) = (tmp_path / "bridge").rglob("*.tfrecord*")
    return index_of(tmp_path / "bridge", tmp_path / "out"), file


def test_pictures_of_records(records):
    index, file = records
    source = RldsSource(file.parent)
    for number in (0, 7, 14):
        frames = source.episode(number, 64).frames
        for wanted in ([3, 0, 9], [5]):
            np.testing.assert_array_equal(
                index.read(index.clips[number], wanted, 64), frames[wanted]
            )


def test_records_that_were_checked_are_not_checked_again(records, monkeypatch):
    """But those of a file that changed are."""
    index, file = records
    clip = index.clips[3]
    first = index.read(clip, [1], 64)
    with monkeypatch.context() as patch:
        patch.setattr(RecordPlace, "read", lambda place: pytest.fail("the record is read whole"))
        np.testing.assert_array_equal(index.read(clip, [1], 64), first)
    data = bytearray(file.read_bytes())
    offset, length, _ = clip.address.split(":", 2)
    data[int(offset) + int(length) // 2] ^= 0xFF
    file.write_bytes(data)
    later_ns = file.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(later_ns, later_ns))
    with pytest.raises(DataError, match="does not match its checksum"):
        index.read(clip, [1], 64)
    assert len(index.read(index.clips[4], [1], 64)) == 1
    file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        index.read(clip, [1], 64)


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
