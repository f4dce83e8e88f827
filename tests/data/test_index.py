# SPDX-License-Identifier: Apache-2.0
"""`lapa data index`: right times and frames of every kind, and nothing unreadable passed over in silence."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from lapa_core import cli
from lapa_core.data.clip_index import ClipIndex
from lapa_core.data.index import IndexConfig, build_index, open_index_or_scan
from lapa_core.data.scan_journal import JOURNAL_NAME
from lapa_core.errors import DataError

TIMES_S = np.array([0.0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 1.0, 1.1, 1.6, 1.7, 1.8])
"""A rate that varies: only where neighbours are a tenth apart do pairs of 0.2 s exist."""


def index_of(data, out, **options):
    return build_index(
        IndexConfig(data=data, out=out, **{"workers": 1, "progress": False, **options})
    )


def make_videos(folder, stamps, write_video, count=3):
    folder.mkdir()
    for number in range(count):
        write_video(folder / f"{number}.mp4", stamps.clip(100 * number, 12), np.arange(12) / 10)
    return folder


def clips_of(index):
    return {clip.id: clip for clip in index.clips}


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.mkv", "libx264")]
)
def test_variable_frame_rate(tmp_path, stamps, write_video, name, codec):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / name, stamps.clip(0, 12), TIMES_S, codec)
    index = index_of(tmp_path / "in", tmp_path / "out")
    (clip,) = index.clips
    np.testing.assert_allclose(clip.times_s, TIMES_S, atol=2e-3)
    assert clip.keyframes[0] == 0
    pairs_P2 = index.pairs(clip, 0.2)
    assert len(pairs_P2)
    np.testing.assert_allclose(np.diff(clip.times_s[pairs_P2]), 0.2, atol=0.09)
    assert pairs_P2[-1].tolist() == [9, 11]
    assert 10 not in pairs_P2[:, 0]  # would run past the end
    assert stamps.read_all(index.read(clip, pairs_P2[:, 1], 32)) == pairs_P2[:, 1].tolist()


def test_frames_come_in_the_order_asked_for(tmp_path, stamps, write_video):
    index = index_of(make_videos(tmp_path / "in", stamps, write_video, 1), tmp_path / "out")
    numbers = [7, 2, 2, 11, 0]
    assert stamps.read_all(index.read(index.clips[0], numbers, 32)) == numbers
    assert index.read(index.clips[0], [], 32).shape == (0, 32, 32, 3)
    with pytest.raises(DataError, match="0 to 11"):
        index.read(index.clips[0], [12], 32)
    with pytest.raises(DataError, match="gap_s is -1"):
        index.pairs(index.clips[0], -1)


@pytest.fixture
def damaged(tmp_path, stamps, write_video):
    """Two good files, of which one is twice there, and six bad ones."""
    folder = make_videos(tmp_path / "in", stamps, write_video, 2)
    shutil.copy(folder / "0.mp4", folder / "copy.mp4")
    for name in ("cut.mp4", "cut.webm"):
        noise = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), dtype=np.uint8)
        codec = "libx264" if name.endswith("mp4") else "libvpx-vp9"
        write_video(folder / name, noise, np.arange(60) / 10, codec)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video")
    write_video(folder / "one.mp4", stamps.clip(0, 1), [0.0])
    (folder / "gone.mkv").symlink_to(tmp_path / "nowhere.mkv")
    return folder


def test_unreadable_files_are_listed_with_their_reasons(tmp_path, damaged, capsys):
    out = tmp_path / "out"
    cli.main(["data", "index", "--data", str(damaged), "--out", str(out), "--workers", "1"])
    printed = capsys.readouterr().out
    facts = json.loads((out / "index.json").read_text())
    reasons = {
        "cut.mp4": "cut short", "cut.webm": "cut short", "empty.mp4": "no bytes", "text.mp4": "damaged",
        "one.mp4": "one frame", "gone.mkv": "No such file",
    }  # fmt: skip
    assert set(facts["unreadable"]) == set(reasons)
    for name, reason in reasons.items():
        assert reason in facts["unreadable"][name]
        assert f"UNREADABLE {name}" in printed
    assert facts["unreadable_count"] == 6
    assert "6 unreadable, 1 copies" in printed
    assert facts["copies"] == {"copy.mp4": "0.mp4"}
    assert set(clips_of(ClipIndex.load(out))) == {"0.mp4", "1.mp4", "copy.mp4"}


def test_files_of_other_kinds_are_counted(tmp_path, stamps, write_video, capsys):
    """Videos come before pictures; what stays out is in the index and on the screen, however it is called."""
    folder = tmp_path / "in"
    (folder / "frames").mkdir(parents=True)
    write_video(folder / "a.mp4", stamps.clip(0, 4), np.arange(4) / 10)
    (folder / "instructions.jsonl").write_text('{"video": "a.mp4", "instruction": "push"}')
    for name in ("b.avi", "c.AVI", "frames/0.jpg", "README"):
        (folder / name).write_bytes(b"x")
    for _ in range(2):  # the index itself lies in the folder and does not count
        cli.main(f"data index --data {folder} --out {folder / 'index'} --workers 1".split())
        facts = ClipIndex.load(folder / "index").facts
        assert facts["not_read"] == {".avi": 2, ".jpg": 1, "README": 1}
        assert (
            "4 files of other kinds are not read: 2 .avi, 1 .jpg, 1 README"
            in capsys.readouterr().out
        )
    for place in (folder / "b.avi", folder / "c.AVI", folder / "README", folder / "a.mp4"):
        place.unlink()
    shutil.rmtree(folder / "index")
    (folder / "frames/0.jpg").unlink()
    (folder / "instructions.jsonl").unlink()
    for number in range(2):
        Image.fromarray(stamps.draw(number)).save(folder / f"frames/{number}.png")
    assert index_of(folder, tmp_path / "out", fps=5).facts["not_read"] == {}


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_text("x")
    with pytest.raises(SystemExit) as stop:
        cli.main(["data", "index", "--data", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert "no clip" in str(stop.value.code)
    assert "first of 1 reasons: a.mp4" in str(stop.value.code)
    assert json.loads((tmp_path / "out/index.json").read_text())["unreadable_count"] == 1
    with pytest.raises(DataError, match=r"holds no clip; its index\.json says why"):
        ClipIndex.load(tmp_path / "out")


def test_unchanged_files_are_not_scanned_again(tmp_path, stamps, write_video):
    """A file whose content goes but whose size and time stay is noticed only by a scan."""
    folder = make_videos(tmp_path / "in", stamps, write_video)
    first = index_of(folder, tmp_path / "out")
    path = folder / "1.mp4"
    state = path.stat()
    path.write_bytes(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert index_of(folder, tmp_path / "out").identity == first.identity
    os.utime(path)
    again = index_of(folder, tmp_path / "out")
    assert set(again.facts["unreadable"]) == {"1.mp4"}
    assert again.identity != first.identity
    assert "1.mp4" in index_of(folder, tmp_path / "out", motion=True).facts["unreadable"]


def test_interrupted_scan_gives_the_same_tables(tmp_path, stamps, write_video):
    folder = make_videos(tmp_path / "in", stamps, write_video)
    straight = index_of(folder, tmp_path / "straight")
    cut = tmp_path / "cut"
    index_of(folder, cut)
    journal = (cut / JOURNAL_NAME).read_text()
    (cut / "index.json").unlink()
    (cut / JOURNAL_NAME).write_text(journal[: int(len(journal) * 0.6)])  # killed within a line
    resumed = index_of(folder, cut)
    assert resumed.identity == straight.identity
    for name in ("clips.parquet", "pts.parquet"):
        assert (cut / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.slow
def test_number_of_workers_changes_nothing(tmp_path, stamps, write_video):
    folder = make_videos(tmp_path / "in", stamps, write_video, 20)
    one = index_of(folder, tmp_path / "one")
    two = index_of(folder, tmp_path / "two", workers=2)
    assert one.identity == two.identity
    assert (tmp_path / "one/pts.parquet").read_bytes() == (
        tmp_path / "two/pts.parquet"
    ).read_bytes()


def test_instructions_belong_to_clips(tmp_path, stamps, write_video):
    folder = make_videos(tmp_path / "in", stamps, write_video, 2)
    line = {"video": "1.mp4", "instruction": "push the red block"}
    (folder / "instructions.jsonl").write_text(json.dumps(line))
    assert [c.instruction for c in index_of(folder, tmp_path / "out").clips] == [
        "",
        line["instruction"],
    ]
    (folder / "instructions.jsonl").write_text(json.dumps({**line, "instruction": "pull it"}))
    index = index_of(folder, tmp_path / "out")  # a text that changed while its video did not
    assert index.clips[1].instruction == "pull it"
    assert index.facts["with_instruction"] == 1
    (folder / "instructions.jsonl").unlink()
    assert index_of(folder, tmp_path / "out").facts["with_instruction"] == 0


def test_motion_tells_still_clips_from_moving_ones(tmp_path, stamps, write_video):
    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "moves.mp4", stamps.clip(0, 30), np.arange(30) / 10)
    write_video(folder / "still.mp4", np.repeat(stamps.clip(5, 1), 30, 0), np.arange(30) / 10)
    clips = clips_of(index_of(folder, tmp_path / "out", motion=True))
    assert clips["moves.mp4"].motion > 10
    assert clips["still.mp4"].motion < 1


def test_folders_of_frames(tmp_path, stamps):
    for name in ("b/2", "b/10"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(12):
            image = Image.fromarray(stamps.draw(number))
            image.save(tmp_path / "in" / name / f"f{number}.{'png' if name == 'b/2' else 'jpg'}")
    (tmp_path / "in/frames.json").write_text('{"fps": 5}')
    index = index_of(tmp_path / "in", tmp_path / "out")
    assert [(clip.id, len(clip), clip.fps) for clip in index.clips] == [
        ("b/10", 12, 5),
        ("b/2", 12, 5),
    ]
    for clip in index.clips:
        pairs_P2 = index.pairs(clip, 0.6)
        np.testing.assert_array_equal(pairs_P2, [[k, k + 3] for k in range(9)])
        assert stamps.read_all(index.read(clip, pairs_P2[:, 1], 32)) == list(range(3, 12))
    (tmp_path / "in/frames.json").write_text('{"fps": 10}')
    assert {clip.fps for clip in index_of(tmp_path / "in", tmp_path / "out").clips} == {10}
    (tmp_path / "in/b/2/f3.png").write_bytes(b"broken")
    again = index_of(tmp_path / "in", tmp_path / "out")
    assert "f3.png" in again.facts["unreadable"]["b/2"]


def test_a_folder_that_was_changed_after_it_was_read_is_refused(tmp_path, stamps):
    """What is known of it from the reading before does not count any more."""
    folder = tmp_path / "in/clip"
    folder.mkdir(parents=True)
    for number in range(4):
        Image.fromarray(stamps.draw(number)).save(folder / f"f{number}.png")
    (tmp_path / "in/frames.json").write_text('{"fps": 5}')
    index = index_of(tmp_path / "in", tmp_path / "out")
    assert stamps.read_all(index.read(index.clips[0], [1, 3], 32)) == [1, 3]
    time.sleep(0.05)  # the clock of a file system ticks some hundred times a second
    (folder / "f0.png").rename(folder / "f0.gone")
    with pytest.raises(DataError, match="holds 3 pictures, the index says 4"):
        index.read(index.clips[0], [1, 3], 32)


@pytest.mark.parametrize("camera", [None, "wrist"])
def test_lerobot_episodes(tmp_path, stamps, make_set, camera):
    path = make_set(cameras=("front", "wrist"))
    index = index_of(path, tmp_path / "out", camera=camera)
    assert [len(clip) for clip in index.clips] == [6, 9, 4]
    assert [clip.instruction for clip in index.clips] == ["task 0", "task 1", "task 0"]
    for number, clip in enumerate(index.clips):
        first = 16 * number + (4096 if camera else 0)
        pairs_P2 = index.pairs(clip, 0.4)
        assert stamps.read_all(index.read(clip, pairs_P2[:, 1], 32)) == [
            first + k for k in range(2, len(clip))
        ]


def test_lerobot_video_that_lacks_frames(tmp_path, make_set):
    """An episode that its tables promise and its video does not hold."""
    path = make_set()
    videos = sorted(path.glob("videos/*/*/*.mp4"))
    shutil.copy(videos[2], videos[1])
    index = index_of(path, tmp_path / "out")
    assert len(index) == 2
    (reason,) = index.facts["unreadable"].values()
    assert "4 of the 9 frames of episode 1" in reason


def test_bridge_records(tmp_path, bridge):
    index = index_of(bridge, tmp_path / "out")
    assert (len(index), index.facts["frames"]) == (15, 150)
    assert index.clips[3].instruction == "turn lever vertical to front"
    assert sum(len(index.pairs(clip, 0.6)) for clip in index.clips) == 15 * 7
    from lapa_core.data.rlds import RldsSource

    episode = RldsSource(bridge / "1.0.0").episode(3, 32)
    np.testing.assert_array_equal(index.read(index.clips[3], [4, 0], 32), episode.frames[[4, 0]])


def test_camera_that_was_not_there_is_unreadable(tmp_path, bridge):
    with pytest.raises(DataError, match="one colour"):
        index_of(bridge, tmp_path / "out", camera="image_3")


def test_recordings_need_no_actions(tmp_path, plan, stamps):
    folder = tmp_path / "in"
    folder.mkdir()
    plan.write(folder / "a.mcap")
    plan.write(folder / "unfinished.mcap", finish=False)
    index = index_of(folder, tmp_path / "out")
    (clip,) = index.clips
    assert clip.instruction == plan.instruction
    assert clip.fps == pytest.approx(20)
    assert "unfinished.mcap" in index.facts["unreadable"]
    pairs_P2 = index.pairs(clip, 0.25)
    np.testing.assert_array_equal(np.diff(pairs_P2), 5)
    assert stamps.read_all(index.read(clip, pairs_P2[3:6, 1], 64)) == [8, 9, 10]


def test_arguments_without_effect_are_refused(tmp_path, stamps, write_video, make_set):
    videos = make_videos(tmp_path / "in", stamps, write_video, 1)
    for data, option in [
        (videos, {"fps": 5}), (videos, {"camera": "front"}), (make_set(), {"fps": 5}),
        (make_set("other"), {"instructions": tmp_path / "texts.jsonl"}),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=f"{next(iter(option))} given, but"):
            index_of(data, tmp_path / "out", **option)


def test_index_is_loaded_strictly(tmp_path, stamps, write_video):
    folder = make_videos(tmp_path / "in", stamps, write_video, 2)
    out = tmp_path / "out"
    index_of(folder, out)
    assert len(open_index_or_scan(out)) == 2
    assert len(ClipIndex.load(out / "index.json")) == 2
    folder.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"data folder .* is missing"):
        ClipIndex.load(out)
    moved = ClipIndex.load(out, data=tmp_path / "moved")
    assert stamps.read_all(moved.read(moved.clips[1], [4], 32)) == [104]
    (out / "pts.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as an index"):
        ClipIndex.load(out, data=tmp_path / "moved")
    with pytest.raises(DataError, match="lapa data index"):
        ClipIndex.load(tmp_path)


def test_the_same_folder_may_be_opened_many_times_at_once(tmp_path, stamps, write_video):
    """As the ranks of a run and the processes of labelling do; threads lock each other out as processes do."""
    folder = make_videos(tmp_path / "in", stamps, write_video, 12)
    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(index_of, folder, tmp_path / "out") for _ in range(18)]
        assert len({future.result().identity for future in found}) == 1


def test_data_folder_is_scanned_into_the_cache(tmp_path, stamps, write_video, monkeypatch):
    monkeypatch.setenv("LAPA_CACHE", str(tmp_path / "cache/frames"))
    folder = make_videos(tmp_path / "in", stamps, write_video, 1)
    assert len(open_index_or_scan(folder, workers=1, progress=False)) == 1
    write_video(folder / "9.mp4", stamps.clip(0, 4), np.arange(4) / 10)
    assert len(open_index_or_scan(folder, workers=1, progress=False)) == 2
    assert list((tmp_path / "cache/index").glob("*/index.json"))
