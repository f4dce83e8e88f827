# SPDX-License-Identifier: Apache-2.0
"""Folders of videos: every container, true times, and files that were cut."""

import json

import numpy as np
import pytest

from lapa_core.data.episode import open_source
from lapa_core.data.scaled_video import SquareScaler, read_squares
from lapa_core.data.video import read_packets, read_timestamps
from lapa_core.data.videos import VideoFolderSource
from lapa_core.errors import DataError

TIMES_S = np.array([0.0, 0.04, 0.08, 0.30, 0.34, 0.90, 0.94, 1.50, 1.52, 1.60, 1.64, 2.40])
CODECS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "webm": "libvpx-vp9"}


@pytest.mark.parametrize("suffix", CODECS)
def test_variable_frame_rate_is_kept(tmp_path, stamps, write_video, suffix):
    write_video(tmp_path / f"a.{suffix}", stamps.clip(0, 12), TIMES_S, CODECS[suffix])
    source = open_source(tmp_path)
    assert isinstance(source, VideoFolderSource)
    episode = source.episode(0)
    assert stamps.read_all(episode.frames) == list(range(12))
    np.testing.assert_allclose(episode.timestamps_s, TIMES_S, atol=2e-3)
    assert episode.fps == pytest.approx(11 / 2.4, rel=1e-2)
    assert episode.actions is None


def test_video_that_lies_on_its_side_is_turned(tmp_path, stamps, write_video):
    """Phones store the sensor's rows and a matrix that says how to hold the picture."""
    path = tmp_path / "a.mp4"
    write_video(path, stamps.clip(5, 3), [0.0, 0.1, 0.2])
    upright = open_source(tmp_path).episode(0).frames
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one, minus_one = (1 << 16).to_bytes(4, "big"), (0xFFFF0000).to_bytes(4, "big")
    data[matrix : matrix + 20] = bytes(4) + one + bytes(4) + minus_one + bytes(4)
    path.write_bytes(data)
    turned = open_source(tmp_path).episode(0).frames
    np.testing.assert_array_equal(turned, np.rot90(upright, -1, axes=(1, 2)))  # clockwise


def test_reordered_frames_come_in_order_of_time(tmp_path, stamps, write_video):
    """B frames are stored out of order."""
    write_video(
        tmp_path / "a.mp4", stamps.clip(0, 20), np.arange(20) / 10, options={"bf": "3", "g": "20"}
    )
    assert stamps.read_all(open_source(tmp_path).episode(0).frames) == list(range(20))
    np.testing.assert_allclose(np.diff(read_timestamps(tmp_path / "a.mp4")), 0.1, atol=1e-6)


def test_trimmed_video_begins_where_it_was_cut(tmp_path, stamps, write_video):
    """What `ffmpeg -ss ... -c copy` and phones write: frames from the key frame on, hidden by an edit list."""
    times_s = np.arange(-5, 15) / 10
    write_video(tmp_path / "a.mp4", stamps.clip(0, 20), times_s, options={"bf": "0", "g": "50"})
    episode = open_source(tmp_path).episode(0)
    assert stamps.read_all(episode.frames) == list(range(5, 20))
    table = read_packets(tmp_path / "a.mp4")
    np.testing.assert_allclose(table.times_s, times_s[5:], atol=1e-3)
    out = np.zeros((2, 32, 32, 3), np.uint8)
    read_squares(tmp_path / "a.mp4", table.pts[[0, 9]], [], SquareScaler(32), out)
    assert stamps.read_all(out) == [5, 14]


def test_instructions_are_read(tmp_path, stamps, write_video):
    (tmp_path / "clips").mkdir()
    for name in ("b", "a"):
        write_video(tmp_path / f"clips/{name}.mp4", stamps.clip(0, 2), [0.0, 0.1])
    line = {"video": "clips/b.mp4", "instruction": "push the red block"}
    (tmp_path / "instructions.jsonl").write_text(json.dumps(line) + "\n")
    source = open_source(tmp_path)
    assert [source.episode(i).instruction for i in range(2)] == ["", "push the red block"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("push it", "line 1 is 'push it'"),
        ('{"video": "a.mp4"}', "is needed"),
        ('{"video": "z.mp4", "instruction": "x"}', "missing or without a text"),
        ('{"video": ["a.mp4"], "instruction": "x"}', "missing or without a text"),
        ('{"video": "a.mp4", "instruction": "x"}\n' * 2, "line 2.*named twice"),
    ],
)
def test_bad_instructions_are_refused(tmp_path, stamps, write_video, text, message):
    write_video(tmp_path / "a.mp4", stamps.clip(0, 2), [0.0, 0.1])
    (tmp_path / "instructions.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [*((s, {}) for s in CODECS), *((s, {"movflags": "faststart"}) for s in ("mp4", "mov"))],
)
def test_cut_file_is_refused(tmp_path, stamps, write_video, suffix, options):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), dtype=np.uint8)
    write_video(path, noise, np.arange(60) / 10, CODECS[suffix], options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"a.{suffix}.*cut short"):
        open_source(tmp_path).episode(0)


def test_damaged_middle_is_refused(tmp_path, write_video):
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), dtype=np.uint8)
    write_video(path, noise, np.arange(30) / 10)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 30_000] = b"\xff" * 30_000
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        open_source(tmp_path).episode(0)


def test_notes_that_are_no_utf8_cost_no_frame(tmp_path, stamps, write_video):
    """A title or a handler's name in latin-1, as cameras of old write it."""
    path = tmp_path / "a.mp4"
    write_video(path, stamps.clip(5, 3), [0.0, 0.1, 0.2])
    data = path.read_bytes()
    assert b"VideoHandler" in data
    path.write_bytes(data.replace(b"VideoHandler", b"Vid\xe9oHandler"))
    assert stamps.read_all(open_source(tmp_path).episode(0).frames) == [5, 6, 7]


def test_a_codec_that_nothing_here_decodes_is_named(tmp_path, stamps, write_video):
    path = tmp_path / "a.mp4"
    write_video(path, stamps.clip(5, 3), [0.0, 0.1, 0.2])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(DataError, match=r"a\.mp4: .*no decoder"):
        open_source(tmp_path).episode(0)


def test_text_named_mp4_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_text("not a video")
    with pytest.raises(DataError, match=r"a\.mp4.*damaged"):
        open_source(tmp_path).episode(0)


def test_one_frame_is_refused(tmp_path, stamps, write_video):
    write_video(tmp_path / "a.mp4", stamps.clip(0, 1), [0.0])
    with pytest.raises(DataError, match="at least two"):
        open_source(tmp_path).episode(0)


def test_folder_without_data_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds \['notes\.txt'\]"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="missing"):
        open_source(tmp_path / "nowhere")
