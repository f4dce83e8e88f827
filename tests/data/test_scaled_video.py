# SPDX-License-Identifier: Apache-2.0
"""Squares straight from the decoder: the right frames, and nearly the pixels of `preprocess`."""

import av
import numpy as np
import pytest
from PIL import Image

from lapa_core.data.scaled_video import SquareScaler, read_squares
from lapa_core.data.video import decode_frames, read_packets
from lapa_core.data.wanted_frames import seek_points
from lapa_core.errors import DataError
from lapa_core.image import preprocess


def smooth_clip(height_px, width_px, count, seed=0):
    """Smooth random colours that drift, as photographs are smooth."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    size = (width_px + count, height_px)
    wide = np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC))
    return np.stack([wide[:, k : k + width_px] for k in range(count)])


def read(path, numbers, image_px):
    table = read_packets(path)
    out = np.zeros((len(numbers), image_px, image_px, 3), np.uint8)
    numbers = np.asarray(numbers)
    seeks = seek_points(numbers, table.keyframes)
    read_squares(path, table.pts[numbers], seeks, SquareScaler(image_px), out)
    return out


@pytest.mark.parametrize("image_px", [32, 96, 160])
@pytest.mark.parametrize(("height_px", "width_px"), [(96, 128), (128, 96), (98, 170)])
def test_squares_are_those_of_preprocess(tmp_path, write_video, height_px, width_px, image_px):
    """The promise of the module's docstring: a mean of 3 grey levels on smooth pictures."""
    path = tmp_path / "a.mp4"
    clip = smooth_clip(height_px, width_px, 3)
    write_video(path, clip, [0.0, 0.1, 0.2], options={"crf": "12"})
    expected = np.stack([preprocess(image, image_px) for _, image in decode_frames(path)])
    difference = read(path, [0, 1, 2], image_px).astype(int) - expected
    assert np.abs(difference).mean() < 3
    assert np.abs(difference.mean()) < 1.5
    other = np.abs(expected[2].astype(int) - np.roll(expected[2], 2, axis=1)).mean()
    assert other > 3.5  # a shift by two pixels would not pass


def test_video_that_lies_on_its_side_is_turned(tmp_path, write_video):
    path = tmp_path / "a.mp4"
    write_video(path, smooth_clip(96, 128, 2), [0.0, 0.1])
    upright = read(path, [0, 1], 48)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one, minus_one = (1 << 16).to_bytes(4, "big"), (0xFFFF0000).to_bytes(4, "big")
    data[matrix : matrix + 20] = bytes(4) + one + bytes(4) + minus_one + bytes(4)
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path, [0, 1], 48), np.rot90(upright, -1, axes=(1, 2)))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "10", "bf": "2"}),
        ("a.webm", "libvpx-vp9", {"g": "200", "deadline": "realtime", "cpu-used": "8"}),
    ],
)
def test_chosen_frames_are_found(tmp_path, stamps, write_video, name, codec, options):
    path = tmp_path / name
    times_s = np.cumsum(np.random.default_rng(0).integers(2, 9, 70)) / 50
    write_video(path, stamps.clip(0, 70), times_s, codec, options)
    numbers = [0, 3, 4, 31, 32, 69]
    assert stamps.read_all(read(path, numbers, 32)) == numbers
    assert stamps.read_all(read(path, [57], 32)) == [57]


@pytest.mark.parametrize("shift", [1.0, 2.5])
def test_times_that_repeat_or_go_back(tmp_path, stamps, write_video, shift):
    """A muxer gave frame 10 the time of frame 11, or one after frame 12: each frame still is what its time says."""
    write_video(
        tmp_path / "a.mkv", stamps.clip(0, 20), np.arange(20) / 10, options={"bf": "0", "g": "9"}
    )
    with av.open(tmp_path / "a.mkv") as source, av.open(tmp_path / "b.mkv", "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            if number == 10:
                packet.pts += round(shift * 100)
            packet.stream = stream
            target.mux(packet)
    table = read_packets(tmp_path / "b.mkv")
    moved = [*range(10), 11, 12, 10, *range(13, 20)] if shift > 1 else [*range(10), *range(11, 20)]
    found = stamps.read_all(read(tmp_path / "b.mkv", range(len(table.pts)), 32))
    if shift == 1:
        assert found[10] in (10, 11)  # either of the two frames at this time
        found[10] = 11
    assert found == moved


def test_seeks_are_planned_where_they_pay():
    keyframes = np.arange(0, 100, 10, dtype=np.int32)
    assert seek_points(np.array([3, 9, 12, 55, 58, 99]), keyframes) == [3, 5]
    assert seek_points(np.array([3, 99]), np.zeros(1, np.int32)) == []
    assert seek_points(np.array([3]), keyframes) == []
    assert (
        seek_points(np.array([3, 99]), np.zeros(0, np.int32)) == []
    )  # of a LeRobot file's long group


def test_changed_file_is_refused(tmp_path, stamps, write_video):
    path = tmp_path / "a.mp4"
    write_video(path, stamps.clip(0, 8), np.arange(8) / 10)
    pts = read_packets(path).pts.copy()
    pts[5] += 1
    out = np.zeros((8, 32, 32, 3), np.uint8)
    with pytest.raises(DataError, match="no frame at tick"):
        read_squares(path, pts, [], SquareScaler(32), out)
