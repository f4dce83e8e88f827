# SPDX-License-Identifier: Apache-2.0
"""LeRobot v3: what is written comes back, official layouts are read, bad input is refused."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation

from lapa_core.data.episode import open_source
from lapa_core.data.lerobot import LeRobotSource, LeRobotWriter
from lapa_core.data.lerobot_format import make_features
from lapa_core.data.video import VideoQuality, decode_frames, encode_video
from lapa_core.errors import DataError
from lapa_core.image import preprocess
from tests.data.conftest import png


def test_what_is_written_comes_back(make_set, stamps):
    source = open_source(make_set(cameras=("front", "wrist")))
    assert isinstance(source, LeRobotSource)
    assert source.camera == "observation.images.front"
    for index, length in enumerate((6, 9, 4)):
        episode = source.episode(index)
        assert stamps.read_all(episode.frames) == [16 * index + k for k in range(length)]
        rows = np.arange(length * 7).reshape(length, 7) / 1000 + index
        np.testing.assert_allclose(episode.actions, rows, rtol=1e-6)
        np.testing.assert_allclose(episode.states, rows + 10, rtol=1e-6)
        assert episode.instruction == f"task {index % 2}"
        np.testing.assert_allclose(episode.timestamps_s, np.arange(length) / 5)
        columns = source.columns(index)
        np.testing.assert_array_equal(
            columns["observation.capture_time"], 100 + np.arange(length) * 0.21
        )
        assert columns["index"][0] == [0, 6, 15][index]


def test_other_camera_is_read(make_set, stamps):
    source = open_source(make_set(cameras=("front", "wrist")), camera="wrist")
    assert stamps.read_all(source.episode(1).frames) == [4096 + 16 + k for k in range(9)]


def test_unknown_camera_is_refused(make_set):
    with pytest.raises(DataError, match=r"'top' is unknown.*observation\.images\.front"):
        open_source(make_set(), camera="top")


def test_frames_go_through_preprocess(make_set):
    source = open_source(make_set())
    full, small = source.episode(0).frames, source.episode(0, image_px=32).frames
    np.testing.assert_array_equal(small, np.stack([preprocess(frame, 32) for frame in full]))


def test_writer_resumes(make_set, stamps):
    path = make_set(lengths=(6,))
    make_set(lengths=(3, 4), first_episode=1)
    source = LeRobotSource(path)
    assert [len(source.episode(i)) for i in range(3)] == [6, 3, 4]
    assert stamps.read(source.episode(2).frames[0]) == 32
    stats = json.loads((path / "meta/stats.json").read_text())
    assert stats["action"]["count"] == [13]
    assert stats["action"]["max"][6] == pytest.approx(2 + 27 / 1000)


def test_tables_are_split_into_groups(tmp_path, stamps, monkeypatch):
    monkeypatch.setattr("lapa_core.data.lerobot_tables._EPISODES_PER_FILE", 3)
    writer = LeRobotWriter(tmp_path / "set", fps=5, features=make_features({"front": (16, 16)}))
    for number in range(8):
        writer.add_episode({"front": stamps.clip(number, 2, 16)}, instruction="go")
        if number == 5:  # resume where a group is just full
            writer = LeRobotWriter(writer.path, fps=5, features=make_features({"front": (16, 16)}))
    assert len(list(tmp_path.glob("set/data/*/*.parquet"))) == 3
    source = LeRobotSource(tmp_path / "set")
    assert [stamps.read(source.episode(i).frames[0]) for i in range(8)] == list(range(8))


def test_resume_with_other_features_is_refused(make_set):
    path = make_set()
    with pytest.raises(DataError, match="whose fps is 5, not 10"):
        LeRobotWriter(path, fps=10, features=make_features({"front": (64, 64)}))


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="not empty"):
        LeRobotWriter(tmp_path, fps=5, features=make_features({"front": (64, 64)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((4, 32, 64, 3), np.uint8)}, "shape"),
        ({"frames": np.zeros((4, 64, 64, 3), np.float32)}, "float32"),
        ({"frames": np.zeros((0, 64, 64, 3), np.uint8)}, "at least one frame"),
        ({"actions": np.zeros((3, 2))}, "4 rows"),
        ({"actions": np.zeros((4, 3))}, "3 columns; 2 are needed"),
        ({"actions": np.full((4, 2), np.nan)}, "row 0 is not finite"),
        ({"actions": None}, "numeric features given are"),
    ],
)
def test_bad_episode_is_refused_and_leaves_no_trace(tmp_path, change, message):
    features = make_features({"front": (64, 64)}, action_names=("x", "y"))
    writer = LeRobotWriter(tmp_path / "set", fps=5, features=features)
    given = {"frames": np.zeros((4, 64, 64, 3), np.uint8), "actions": np.zeros((4, 2))}
    bad = {**given, **change}
    with pytest.raises(DataError, match=message):
        writer.add_episode({"front": bad["frames"]}, instruction="x", actions=bad["actions"])
    writer.add_episode({"front": given["frames"]}, instruction="y", actions=given["actions"])
    source = LeRobotSource(tmp_path / "set")
    assert len(source) == 1
    assert source.instruction(0) == "y"


@pytest.mark.parametrize("name", ["observation.image_age", "a/b", "timestamp"])
def test_feature_names_that_break_tools_are_refused(name):
    with pytest.raises(DataError, match="cannot be used"):
        make_features({"front": (64, 64)}, extra={name: ("float32", 1)})


def test_task_text_is_the_pandas_index(make_set):
    schema = pq.read_schema(make_set() / "meta/tasks.parquet")
    assert json.loads(schema.metadata[b"pandas"])["index_columns"] == ["task"]


def make_official(path, stamps, make_set):
    """Rewrite a set as official tools lay it out: all episodes in one mp4, underscored names."""
    shutil.copytree(make_set(), path)
    source = LeRobotSource(path)
    key, lengths = source.camera, [source.length(i) for i in range(3)]
    clips = np.concatenate([stamps.clip(16 * e, n) for e, n in enumerate(lengths)])
    shutil.rmtree(path / "videos")
    folder = path / "videos" / key / "chunk-000"
    folder.mkdir(parents=True)
    encode_video(folder / "file_000.mp4", clips, 5, VideoQuality(group_of_pictures=10))
    for old in path.glob("data/*/*.parquet"):
        old.rename(old.with_name(old.name.replace("-", "_")))
    table = pq.read_table(path / "meta/episodes/chunk-000/file-000.parquet")
    starts = np.concatenate([[0], np.cumsum(lengths)]) / 5
    for column, values in (
        ("file_index", [0, 0, 0]),
        ("from_timestamp", starts[:-1]),
        ("to_timestamp", starts[1:]),
    ):
        place = table.column_names.index(f"videos/{key}/{column}")
        table = table.set_column(place, table.column_names[place], pa.array(values))
    pq.write_table(table, path / "meta/episodes/chunk-000/file-000.parquet")
    info = json.loads((path / "meta/info.json").read_text())
    for template in ("data_path", "video_path"):
        info[template] = info[template].replace("file-{", "file_{")
    (path / "meta/info.json").write_text(json.dumps(info))
    return path


def test_official_layout_is_read(tmp_path, stamps, make_set):
    source = LeRobotSource(make_official(tmp_path / "official", stamps, make_set))
    for index in (2, 0, 1):  # out of order: the seek must find each start
        frames = source.episode(index).frames
        assert stamps.read_all(frames) == [16 * index + k for k in range(len(frames))]


def test_images_in_the_table_are_read(tmp_path, make_set, stamps):
    """Sets without video keep PNG bytes in the rows."""
    path = make_set(lengths=(4,))
    info = json.loads((path / "meta/info.json").read_text())
    key = "observation.images.front"
    info["features"][key]["dtype"] = "image"
    (path / "meta/info.json").write_text(json.dumps(info))
    cells = [{"bytes": png(frame), "path": None} for frame in stamps.clip(7, 4)]
    file = path / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).append_column(key, pa.array(cells)), file)
    assert stamps.read_all(LeRobotSource(path).episode(0).frames) == [7, 8, 9, 10]


def test_cut_video_is_refused(make_set):
    path = make_set()
    video = next(path.glob("videos/*/*/file-001.mp4"))
    video.write_bytes(video.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"file-001\.mp4.*cut short"):
        LeRobotSource(path).episode(1)


def test_video_with_fewer_frames_is_refused(make_set, stamps):
    path = make_set()
    video = next(path.glob("videos/*/*/file-001.mp4"))
    encode_video(video, stamps.clip(16, 8), 5, VideoQuality())
    with pytest.raises(DataError, match=r"should have 9 frames at 5 Hz.*found 8"):
        LeRobotSource(path).episode(1)


@pytest.mark.parametrize(
    "name", ["meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"]
)
def test_footless_parquet_is_refused(make_set, name):
    path = make_set()
    (path / name).write_bytes((path / name).read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read"):
        LeRobotSource(path).episode(0)


def test_older_version_is_refused(make_set):
    path = make_set() / "meta/info.json"
    path.write_text(path.read_text().replace('"v3.0"', '"v2.1"'))
    with pytest.raises(DataError, match=r"v2\.1.*v3\.0"):
        LeRobotSource(path.parent.parent)


def test_video_is_near_lossless_at_policy_size(tmp_path):
    """A picture like the simulator's: coloured blocks, a dark thin arm, on a graded board."""
    rows, columns = np.mgrid[:128, :128]
    image = (np.array([120, 110, 100]) + rows[..., None] / 4).astype(np.uint8)
    for place, colour in enumerate([(220, 30, 30), (30, 200, 40), (30, 40, 220), (230, 210, 30)]):
        image[30 + 17 * place :][:14, 20 + 22 * place :][:, :14] = colour
    image[np.abs(rows - columns) < 3] = (40, 40, 45)
    encode_video(tmp_path / "a.mp4", np.stack([image] * 4), 5, VideoQuality())
    (_, decoded), *_ = decode_frames(tmp_path / "a.mp4")
    error = preprocess(image, 64).astype(float) - preprocess(decoded, 64)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40


def rename_actions(path, names):
    """Name the actions as another tool does."""
    info = json.loads((path / "meta/info.json").read_text())
    info["features"]["action"]["names"] = names
    (path / "meta/info.json").write_text(json.dumps(info))
    return path


EULER = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]


@pytest.mark.parametrize("names", [EULER, {"motors": EULER}, [f"delta_{name}" for name in EULER]])
def test_roll_pitch_yaw_of_other_tools_become_rotation_vectors(tmp_path, stamps, names):
    rows = np.random.default_rng(0).uniform(0, 1, (6, 7))
    path = tmp_path / "set"
    features = make_features({"front": (16, 16)}, action_names=EULER)
    writer = LeRobotWriter(path, fps=5, features=features)
    writer.add_episode({"front": stamps.clip(0, 6, 16)}, instruction="go", actions=rows)
    episode = LeRobotSource(rename_actions(path, names)).episode(0)
    about_x, about_y, about_z = (
        Rotation.from_rotvec(np.outer(rows[:, 3 + axis], np.eye(3)[axis])) for axis in range(3)
    )
    expected = (about_z * about_y * about_x).as_rotvec()
    np.testing.assert_allclose(episode.actions[:, 3:6], expected, atol=1e-6)
    np.testing.assert_allclose(episode.actions[:, [0, 1, 2, 6]], rows[:, [0, 1, 2, 6]], atol=1e-7)


@pytest.mark.parametrize(
    "names", [None, {"motors": [f"joint_{k}" for k in range(7)]}, EULER[::-1], 3, {"motors": 3}]
)
def test_actions_that_are_no_deltas_are_not_taken_for_some(make_set, caplog, names):
    """Seven joint targets have the shape of a delta; a policy of them would throw the arm about."""
    source = LeRobotSource(rename_actions(make_set(), names))
    assert [source.episode(index).actions for index in (0, 1)] == [None, None]
    assert caplog.text.count("are no end-effector deltas") == 1


def test_a_set_of_another_number_of_actions_is_read_for_its_pictures(tmp_path, stamps):
    joints = [f"joint_{k}" for k in range(6)]
    features = make_features({"front": (16, 16)}, action_names=joints)
    writer = LeRobotWriter(tmp_path / "set", fps=5, features=features)
    writer.add_episode({"front": stamps.clip(0, 3, 16)}, instruction="go", actions=np.ones((3, 6)))
    episode = LeRobotSource(writer.path).episode(0)
    assert episode.actions is None
    assert stamps.read_all(episode.frames) == [0, 1, 2]


def test_an_euler_set_whose_gripper_is_no_opening_is_refused(tmp_path, stamps):
    features = make_features({"front": (16, 16)}, action_names=EULER)
    writer = LeRobotWriter(tmp_path / "set", fps=5, features=features)
    writer.add_episode({"front": stamps.clip(0, 3, 16)}, instruction="go", actions=-np.ones((3, 7)))
    with pytest.raises(DataError, match="gripper action runs from -1 to -1"):
        LeRobotSource(writer.path).episode(0)
