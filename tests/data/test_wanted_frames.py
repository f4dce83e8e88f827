# SPDX-License-Identifier: Apache-2.0
"""Wanted frames of a video: bit for bit those of decoding everything, and little besides them decoded."""

import av
import numpy as np
import pytest

from lapa_core.data.video import decode_frames, read_packets
from lapa_core.data.wanted_frames import _open_unprobed, seek_points, wanted_frames
from lapa_core.errors import DataError

COUNT = 90
PYRAMID = {"g": "30", "bf": "3", "b_strategy": "0", "threads": "1"}
"""h264 in which about half the frames are B frames to which no other refers."""


def moving_clip(seed=0):
    """Noise that moves by a pixel a frame, so that each frame refers to others."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (64, 64 + COUNT, 3), dtype=np.uint8)
    return np.stack([wide[:, k : k + 64] for k in range(COUNT)])


def write(path, write_video, codec="libx264", options=PYRAMID):
    write_video(path, moving_clip(), np.arange(COUNT) / 20, codec, options)
    return read_packets(path)


def read(path, table, numbers):
    """The wanted frames by number, as bytes."""
    numbers = np.asarray(numbers)
    seeks = seek_points(numbers, table.keyframes)
    found = wanted_frames(path, table.pts[numbers].tolist(), seeks)
    return {int(numbers[place]): frame.to_ndarray().tobytes() for place, frame in found}


def read_everything(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", PYRAMID),
        ("a.mkv", "libx264", PYRAMID),
        (
            "a.mp4",
            "libx265",
            {"preset": "ultrafast", "bf": "3", "x265-params": "keyint=20:log-level=none"},
        ),
        ("a.mov", "mpeg4", {"g": "12", "bf": "2"}),
        ("a.mov", "mjpeg", {"strict": "-1"}),
        ("a.mp4", "libsvtav1", {"preset": "12", "g": "30"}),
        ("a.webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
        ("a.webm", "libvpx-vp9", {"g": "200", "deadline": "realtime", "cpu-used": "8"}),
    ],
)
def test_frames_are_those_of_decoding_everything(tmp_path, write_video, name, codec, options):
    table = write(tmp_path / name, write_video, codec, options)
    everything = read_everything(tmp_path / name)
    assert len(everything) == COUNT
    rng = np.random.default_rng(1)
    choices = [np.sort(rng.choice(COUNT, size, replace=False)) for size in (1, 1, 5, 20, COUNT)]
    for numbers in [*choices, np.arange(40, 60)]:
        found = read(tmp_path / name, table, numbers)
        assert sorted(found) == numbers.tolist()
        assert all(content == everything[number] for number, content in found.items())


def overwrite(path, number, table, after=5):
    """Spoil the packet of a frame from some byte on; the fifth is the first behind its type."""
    with av.open(str(path)) as container:
        packets = (packet for packet in container.demux(video=0) if packet.size)
        packet = next(p for p in packets if p.pts == table.pts[number])
        start, length = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[start + after : start + length] = b"\xff" * (length - after)
    path.write_bytes(data)


def unreferred(path, table):
    """Numbers of the frames to which no other refers: `nal_ref_idc` of their first slice is 0."""
    numbers = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            data, place = bytes(packet), 0
            while place < len(data):
                length, head = int.from_bytes(data[place : place + 4], "big"), data[place + 4]
                if head & 31 in (1, 5) and not head >> 5 & 3:
                    numbers.append(int(np.searchsorted(table.pts, packet.pts)))
                place += 4 + length
    return sorted(set(numbers))


def test_frames_that_no_other_needs_are_left_out(tmp_path, write_video):
    """One of them is damaged, which decoding it would betray."""
    path = tmp_path / "a.mp4"
    table = write(path, write_video)
    everything = read_everything(path)
    spare = next(number for number in unreferred(path, table) if number > 5)
    overwrite(path, spare, table)
    with pytest.raises(DataError, match="damaged"):
        list(decode_frames(path))
    assert read(path, table, [spare + 4]) == {spare + 4: everything[spare + 4]}
    with pytest.raises(DataError, match="damaged"):
        read(path, table, [spare, spare + 4])


def test_nothing_is_decoded_after_the_last_wanted_frame(tmp_path, write_video):
    """The next frames in the file are damaged; a decoder that waits for the order of frames would meet them."""
    path = tmp_path / "a.mp4"
    table = write(path, write_video)
    everything = read_everything(path)
    with av.open(str(path)) as container:
        order = [packet.pts for packet in container.demux(video=0) if packet.size]
    last = 13
    for pts in order[order.index(table.pts[last]) + 1 :][:4]:
        overwrite(path, int(np.searchsorted(table.pts, pts)), table)
    numbers = np.array([3, 8, last])
    assert read(path, table, numbers) == {number: everything[number] for number in numbers}


@pytest.mark.parametrize("number", [4, 60])
def test_frames_that_rest_on_a_damaged_one_are_refused(tmp_path, write_video, number):
    """The decoder marks only the damaged one. The frame before it in time lies after it in the file and rests on it."""
    path = tmp_path / "a.mp4"
    table = write(path, write_video)
    everything = read_everything(path)
    overwrite(path, number, table, after=12)
    damaged = read_everything(path)
    for wanted in (number - 1, number + 5):
        rests = damaged[wanted] != everything[wanted]
        assert rests or (number == 60 and wanted == 59)  # before a key frame
        if rests:
            with pytest.raises(DataError, match="a corrupt frame"):
                read(path, table, [wanted])
    assert read(path, table, [40]) == {40: everything[40]}


def test_a_file_is_opened_without_decoding_where_its_times_suffice(tmp_path, write_video):
    """The format of pixels is what a decoder would have told."""
    for name, codec, decoded in (
        ("a.mp4", "libx264", False),
        ("a.webm", "libvpx-vp9", False),
        ("a.mkv", "libx264", True),
    ):
        write(tmp_path / name, write_video, codec, {"g": "30"})
        with _open_unprobed(tmp_path / name) as container:
            assert (container.streams.video[0].codec_context.format is not None) == decoded, name
