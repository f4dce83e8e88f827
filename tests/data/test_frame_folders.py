# SPDX-License-Identifier: Apache-2.0
"""Folders of pictures as a data set: natural order, a rate that is never guessed."""

import contextlib
import json

import numpy as np
import pytest
from PIL import Image

from lapa_core.data.convert import import_source
from lapa_core.data.episode import open_source
from lapa_core.data.frame_folders import FrameFolderSource, read_picture
from lapa_core.data.mcap_source import McapSource
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError


def write_frames(folder, frames, suffix="png"):
    folder.mkdir(parents=True)
    for number, image in enumerate(frames):
        Image.fromarray(image).save(folder / f"frame{number}.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
def test_pictures_come_in_natural_order(tmp_path, stamps, suffix):
    write_frames(tmp_path / "clip", stamps.clip(0, 12), suffix)
    source = open_source(tmp_path, fps=10)
    assert isinstance(source, FrameFolderSource)
    episode = source.episode(0)
    assert stamps.read_all(episode.frames) == list(range(12))
    assert (episode.fps, episode.actions) == (10, None)
    np.testing.assert_allclose(episode.timestamps_s, np.arange(12) / 10)


def test_store_is_made_of_folders(tmp_path, stamps):
    for name in ("b", "a"):
        write_frames(tmp_path / "set" / name, stamps.clip(0, 5))
    (tmp_path / "set/frames.json").write_text('{"fps": 5}')
    line = {"video": "b", "instruction": "push the red block"}
    (tmp_path / "set/instructions.jsonl").write_text(json.dumps(line))
    store = FrameStore.load(tmp_path / "set", 32, cache_dir=tmp_path / "cache")
    assert store.instructions == ["", "push the red block"]
    assert len(store.valid_pairs(0.6)) == 2 * 2


def test_own_rate_goes_before_argument_and_folder(tmp_path, stamps):
    for name in ("a", "b"):
        write_frames(tmp_path / name, stamps.clip(0, 2))
    (tmp_path / "frames.json").write_text('{"fps": 5}')
    (tmp_path / "b/frames.json").write_text('{"fps": 25}')
    assert FrameFolderSource(tmp_path).rates == [5, 25]
    assert FrameFolderSource(tmp_path, fps=8).rates == [8, 25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"nothing says how many pictures a second.*frames\.json"),
        ("5", "exactly"),
        ('{"fps": 0}', "positive"),
        ('{"fps": "5"}', "positive"),
        ('{"fps": 5, "rate": 5}', "exactly"),
        ("{", "no JSON"),
    ],
)
def test_missing_or_bad_rate_is_refused(tmp_path, stamps, text, message):
    write_frames(tmp_path / "a", stamps.clip(0, 2))
    if text is not None:
        (tmp_path / "frames.json").write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path)


def test_bad_pictures_are_refused(tmp_path, stamps):
    write_frames(tmp_path / "a", stamps.clip(0, 2))
    write_frames(tmp_path / "b", [*stamps.clip(0, 2), stamps.draw(3, 32)])
    write_frames(tmp_path / "c", stamps.clip(0, 1))
    (tmp_path / "a/frame1.png").write_bytes(b"broken")
    source = open_source(tmp_path, fps=5)
    for number, message in enumerate(["frame1.png", "one size", "at least two"]):
        with pytest.raises(DataError, match=message):
            source.episode(number)


def test_any_damage_of_a_picture_is_refused(tmp_path, stamps):
    """Pillow raises SyntaxError and ValueError too, depending on the byte."""
    path, rng = tmp_path / "a.png", np.random.default_rng(0)
    Image.fromarray(stamps.draw(3, 32)).save(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(400):
        data = bytearray(whole)
        data[rng.integers(8, 60)] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read_picture(path)
            continue
        refused += 1
    assert refused > 200


def test_recordings_are_episodes_without_actions(tmp_path, plan, stamps):
    plan.write(tmp_path / "a.mcap")
    source = open_source(tmp_path)
    assert isinstance(source, McapSource)
    episode = source.episode(0)
    assert stamps.read_all(episode.frames) == list(range(len(episode)))
    assert episode.actions is None
    assert episode.fps == pytest.approx(20)
    assert len(open_source(tmp_path, camera="front").episode(0)) == len(episode)
    with pytest.raises(DataError, match=r"names no topic; give one of \['/camera/front"):
        open_source(tmp_path, camera="wrist").episode(0)


def test_import_knows_a_folder_again(tmp_path, stamps):
    """Folders are known by their paths, so that a new one in between is the only one that is added."""
    for name in ("a", "c"):
        write_frames(tmp_path / "in" / name, stamps.clip(0, 4))
    (tmp_path / "in/frames.json").write_text('{"fps": 5}')
    assert import_source(tmp_path / "in", tmp_path / "set").num_episodes == 2
    write_frames(tmp_path / "in/b", stamps.clip(40, 4))
    report = import_source(tmp_path / "in", tmp_path / "set")
    assert (report.num_episodes, report.num_known) == (1, 2)
    assert stamps.read_all(open_source(tmp_path / "set").episode(2).frames) == [40, 41, 42, 43]


def test_import_of_recordings(tmp_path, plan, stamps):
    plan.write(tmp_path / "a.mcap")
    report = import_source(tmp_path, tmp_path / "set", fps=10)
    assert report.num_episodes == 1
    frames = open_source(tmp_path / "set").episode(0).frames
    assert stamps.read_all(frames)[:4] == [0, 2, 4, 6]
