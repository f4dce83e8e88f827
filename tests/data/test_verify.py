# SPDX-License-Identifier: Apache-2.0
"""`verify` finds every fault, those above all that the format's own loader lets pass."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lapa_core.data.lerobot import LeRobotSource
from lapa_core.data.verify import verify
from lapa_core.data.video import VideoQuality, encode_video
from lapa_core.errors import DataError
from tests.data.conftest import png

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-000.parquet"
CAMERA = "observation.images.front"
VIDEO = f"videos/{CAMERA}/chunk-000/file-001.mp4"


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_column(path, column, change):
    """Rewrite one column of a parquet file by a function of its list of values."""
    table = pq.read_table(path)
    place = table.column_names.index(column)
    values = pa.array(change(table[column].to_pylist()), table[column].type)
    pq.write_table(table.set_column(place, table.field(place), values), path)


def add_at(position, amount):
    return lambda values: [v + amount * (i == position) for i, v in enumerate(values)]


def set_number(row, column, value):
    def change(values):
        values[row] = [value if c == column else v for c, v in enumerate(values[row])]
        return values

    return change


def faults(stamps):
    """Name of each fault: what does it to the data set in `path`, and what must be said."""

    def shorter_video(path):
        encode_video(path / VIDEO, stamps.clip(16, 8), 5, VideoQuality())

    def other_rate_video(path):
        encode_video(path / VIDEO, stamps.clip(16, 9), 10, VideoQuality())

    def cut(name, tail):
        return lambda p: (p / name).write_bytes((p / name).read_bytes()[:-tail])

    def without_pandas(path):
        table = pq.read_table(path / TASKS)
        pq.write_table(table.replace_schema_metadata(None), path / TASKS)

    def extra_column(path):
        table = pq.read_table(path / DATA)
        pq.write_table(table.append_column("extra", table["index"]), path / DATA)

    def drop_column(path):
        pq.write_table(pq.read_table(path / DATA).drop_columns(["action"]), path / DATA)

    def narrower_action(path):
        table = pq.read_table(path / DATA)
        rows = [row[:6] for row in table["action"].to_pylist()]
        place = table.column_names.index("action")
        values = pa.array(rows, pa.list_(pa.float32(), 6))
        pq.write_table(table.set_column(place, "action", values), path / DATA)

    def without_episode(path):
        pq.write_table(pq.read_table(path / EPISODES).take([0, 2]), path / EPISODES)

    def swapped_episodes(path):
        pq.write_table(pq.read_table(path / EPISODES).take([1, 0, 2]), path / EPISODES)

    def stray_video(path):
        (path / VIDEO).with_name("file-009.mp4").write_bytes((path / VIDEO).read_bytes())

    def flipped_bit(path):
        data = bytearray((path / VIDEO).read_bytes())
        place = data.index(b"mdat") + 900  # inside the picture data, after x264's own note
        data[place] ^= 1
        (path / VIDEO).write_bytes(data)

    def flipped_number(path):
        """The lowest bit of a number: a change that no statistics tell."""
        column = pq.ParquetFile(path / DATA).metadata.row_group(0).column(0)
        data = bytearray((path / DATA).read_bytes())
        data[column.data_page_offset + column.total_compressed_size - 4] ^= 1
        (path / DATA).write_bytes(data)

    def in_stats(name, key, value):
        def change(path):
            stats = json.loads((path / STATS).read_text())
            stats[name][key] = value
            (path / STATS).write_text(json.dumps(stats))

        return change

    def in_features(name, **changes):
        def change(path):
            features = json.loads((path / INFO).read_text())["features"]
            features[name] = {**features[name], **changes}
            edit_json(path / INFO, features=features)

        return change

    def column(file, name, change):
        return lambda path: edit_column(path / file, name, change)

    def info(**changes):
        return lambda path: edit_json(path / INFO, **changes)

    start = f"videos/{CAMERA}/from_timestamp"
    return {
        # What lerobot 0.6.1 lets pass (facts of the data formats, 1.4).
        "from_timestamp one frame off": (
            column(EPISODES, start, add_at(1, 0.2)),
            "+1.00 frames off",
        ),
        "fps wrong": (info(fps=10), "timestamp differs from frame_index / fps"),
        "dataset_to_index short": (
            column(EPISODES, "dataset_to_index", add_at(1, -1)),
            "6 to 14 for 9",
        ),
        "total_frames wrong": (info(total_frames=20), "total_frames is 20; episodes have 19"),
        "tasks without pandas index": (without_pandas, "not the pandas index"),
        "NaN action": (
            column(DATA, "action", set_number(8, 2, np.nan)),
            "action is not finite in row 2",
        ),
        "infinite state": (
            column(DATA, "observation.state", set_number(0, 0, np.inf)),
            "episode 0: observation.state is not finite in row 0",
        ),
        "no stats": (lambda p: (p / STATS).unlink(), "stats.json is missing"),
        # What it finds only when an item is read.
        "timestamp jitter": (column(DATA, "timestamp", add_at(3, 0.015)), "by up to 0.0150 s"),
        "video cut short": (cut(VIDEO, 100), "file-001.mp4"),
        "video of fewer frames": (shorter_video, "it has 8 frames, its episodes need 9"),
        "video of another rate": (other_rate_video, "frames come at 10.000 Hz"),
        "far wrong offset": (column(EPISODES, start, add_at(2, 3.0)), "+15.00 frames off"),
        # What it finds at load.
        "missing tasks": (lambda p: (p / TASKS).unlink(), "tasks.parquet cannot be read"),
        "missing video": (lambda p: (p / VIDEO).unlink(), "the video is missing"),
        "no parquet footer": (cut(DATA, 30), "file-000.parquet cannot be read"),
        "no episodes footer": (cut(EPISODES, 30), "file-000.parquet cannot be read"),
        "extra column": (extra_column, "['extra'] too many"),
        "missing column": (drop_column, "columns ['action'] are missing"),
        "wrong shape": (narrower_action, "column action"),
        "episode row gap": (without_episode, "holds episodes [0, 2]; info.json counts 3"),
        "episode rows swapped": (swapped_episodes, "holds episodes [1, 0, 2]"),
        "total_episodes too many": (info(total_episodes=4), "info.json counts 4"),
        "total_episodes too few": (info(total_episodes=2), "belong to no episode"),
        # And more of the same kind.
        "total_tasks wrong": (info(total_tasks=5), "total_tasks is 5; 2 exist"),
        "older version": (info(codebase_version="v2.1"), "only 'v3.0' is read"),
        "index jumps": (column(DATA, "index", add_at(7, 5)), "index does not count up from 6"),
        "frame_index jumps": (
            column(DATA, "frame_index", add_at(7, 5)),
            "frame_index does not count",
        ),
        "other task": (column(DATA, "task_index", add_at(7, -1)), "task_index stands for"),
        "unknown task": (column(DATA, "task_index", add_at(7, 70)), "task_index stands for"),
        "row of another episode": (column(DATA, "episode_index", add_at(7, 1)), "has 8 rows"),
        "instruction not in tasks": (
            column(EPISODES, "tasks", lambda v: [["fold the towel"], *v[1:]]),
            "instruction ['fold the towel'] is not in tasks",
        ),
        "stale stats": (
            column(DATA, "action", set_number(8, 2, 99.0)),
            "stats.json: max of action",
        ),
        "wrong picture size": (in_features(CAMERA, shape=[32, 32, 3]), "frames have shapes"),
        "name that breaks tools": (in_features("index", dtype="int32"), "dtype int64 is needed"),
        "stray video": (stray_video, "file-009.mp4 belongs to no episode"),
        "bit rot": (flipped_bit, "file-001.mp4"),
        "bit rot in a table": (flipped_number, "file-000.parquet cannot be read"),
        "stale quantile": (in_stats("action", "q99", [0.0] * 7), "stats.json: q99 of action"),
        "stale picture stats": (in_stats(CAMERA, "mean", [[[0.9]]] * 3), f"mean of {CAMERA} is"),
        "stats that are not finite": (in_stats("action", "mean", [None] * 7), "mean of action is"),
        "stats of another kind": (in_stats("action", "mean", {}), "action holds something else"),
        "leftover of a killed writer": (
            lambda p: (p / "meta/info.json.tmp").touch(),
            "left of a killed writer",
        ),
    }


NAMES = tuple(faults(None))


def test_sound_sets_have_no_problems(make_set):
    path = make_set(cameras=("front", "wrist"))
    for decode in (True, False):
        report = verify(path, decode=decode)
        assert report.problems == ()
        assert (report.num_episodes, report.num_frames, report.num_videos) == (3, 19, 6)
        report.raise_on_problem()


@pytest.mark.parametrize("name", NAMES)
def test_fault_is_found(make_set, stamps, name):
    inject, sentence = faults(stamps)[name]
    path = make_set()
    inject(path)
    report = verify(path)
    assert any(sentence in problem for problem in report.problems), report.problems
    with pytest.raises(DataError, match="problems:"):
        report.raise_on_problem()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"features": [1]}, "features are"),
        ({"features": {"action": 3}}, "feature action has dtype None"),
        ({"features": {"action": {"dtype": "float99", "shape": [7]}}}, "dtype 'float99'"),
        ({"features": {"action": {"dtype": "float32", "shape": [0]}}}, r"shape \[0\]"),
        ({"features": {CAMERA: {"dtype": "video", "shape": [64]}}}, "three of them for pictures"),
        ({"total_frames": None}, "total_frames is None"),
        ({"total_episodes": -1}, "total_episodes is -1"),
        ({"data_path": "data/{number}.parquet"}, "data_path is"),
        ({"video_path": 3}, "video_path is 3"),
    ],
)
def test_an_info_that_nothing_can_be_read_by_is_a_problem_not_a_crash(make_set, changes, sentence):
    path = make_set(lengths=(2,))
    edit_json(path / INFO, **changes)
    assert re.search(sentence, " ".join(verify(path).problems))
    with pytest.raises(DataError, match=sentence):
        LeRobotSource(path)


def test_pictures_in_tables_are_decoded(tmp_path, make_set, stamps):
    path = make_set(lengths=(3,))
    features = json.loads((path / INFO).read_text())["features"]
    edit_json(path / INFO, features={**features, CAMERA: {**features[CAMERA], "dtype": "image"}})
    files = [png(frame) for frame in stamps.clip(7, 3)]

    def problems(cells):
        table = pq.read_table(path / DATA)
        if CAMERA in table.column_names:
            table = table.drop_columns([CAMERA])
        pq.write_table(table.append_column(CAMERA, pa.array(cells)), path / DATA)
        return verify(path).problems

    whole = [{"bytes": data, "path": None} for data in files]
    assert problems(whole) == ()
    (damaged,) = problems([whole[0], {"bytes": files[1][:-40], "path": None}, whole[2]])
    assert f"{CAMERA} row 1 cannot be read" in damaged
    (small,) = problems([*whole[:2], {"bytes": png(stamps.draw(1, 32)), "path": None}])
    assert f"{CAMERA} row 2 has shape (32, 32, 3)" in small


def test_one_fault_does_not_hide_another(make_set):
    path = make_set()
    edit_column(path / DATA, "action", set_number(8, 2, np.nan))
    (path / VIDEO).unlink()
    problems = " ".join(verify(path).problems)
    assert "not finite" in problems
    assert "the video is missing" in problems


def test_faults_that_change_frames_are_not_read_in_silence(make_set):
    """The reader itself refuses an offset of one frame where the file ends too early for it."""
    path = make_set()
    edit_column(path / EPISODES, f"videos/{CAMERA}/from_timestamp", add_at(1, 0.2))
    with pytest.raises(DataError, match="should have 9 frames"):
        LeRobotSource(path).episode(1)


@pytest.mark.parametrize("column", ["chunk_index", "file_index", "from_timestamp"])
def test_an_episode_that_does_not_say_where_its_video_is_is_refused(make_set, column):
    path = make_set(lengths=(2, 2))
    table = pq.read_table(path / EPISODES).drop_columns([f"videos/{CAMERA}/{column}"])
    pq.write_table(table, path / EPISODES)
    with pytest.raises(DataError, match="episode 1 does not say where its video"):
        LeRobotSource(path).episode(1)
    assert any(f"videos/{CAMERA}/{column}" in problem for problem in verify(path).problems)


def test_folder_without_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no meta/info\.json"):
        verify(tmp_path)
