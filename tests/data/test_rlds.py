# SPDX-License-Identifier: Apache-2.0
"""RLDS: the real BridgeData sample, read without TensorFlow, and damage that must not pass."""

import json
import shutil

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from transforms3d.euler import euler2mat

from lapa_core.data.episode import open_source
from lapa_core.data.euler import euler_to_rotation_vector
from lapa_core.data.rlds import RldsSource
from lapa_core.data.store import FrameStore
from lapa_core.data.tfrecord import crc32c, parse_example
from lapa_core.errors import DataError

STEP_FEATURES = (
    "featuresDict", "features", "steps", "sequence", "feature", "featuresDict", "features",
)  # fmt: skip


def test_crc32c_check_value():
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("length", [2047, 2048, 2049, 5000])
def test_lanes_give_the_same_crc_as_bytes(length):
    data = np.random.default_rng(length).bytes(length)
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    assert crc32c(data) == register ^ 0xFFFFFFFF


def test_bridge_episode(bridge):
    source = open_source(bridge)
    assert isinstance(source, RldsSource)
    assert len(source) == 15
    assert source.camera == "image_0"
    episode = source.episode(3)
    assert episode.instruction == "turn lever vertical to front"
    assert episode.frames.shape == (10, 64, 64, 3)
    assert episode.fps == 5.0
    assert 40 < episode.frames.std() < 70
    assert np.abs(episode.actions[:, :3]).max() < 0.05  # the robot's own cap per step [m]
    assert ((episode.actions[:, 6] >= 0) & (episode.actions[:, 6] <= 1)).all()


def test_every_bridge_episode_is_read(bridge, tmp_path):
    store = FrameStore.load(bridge, 32, camera="image_2", cache_dir=tmp_path)
    assert store.frames.shape == (150, 32, 32, 3)
    assert len(store.valid_pairs(0.6)) == 15 * 7
    assert len(set(store.instructions)) == 4


def test_actions_explain_the_motion(bridge):
    """The commanded translations point where the measured position went, in most episodes."""
    source, cosines = RldsSource(bridge / "1.0.0"), []
    for index in range(len(source)):
        episode = source.episode(index)
        commanded = episode.actions[:-1, :3].sum(axis=0)
        moved = episode.states[-1, :3] - episode.states[0, :3]
        cosines.append(commanded @ moved / np.linalg.norm(commanded) / np.linalg.norm(moved))
    assert np.median(cosines) > 0.9


def test_rotation_vectors_turn_like_the_euler_angles():
    roll, pitch, yaw = 0.3, -0.2, 0.5
    expected = (
        Rotation.from_rotvec([0, 0, yaw])
        * Rotation.from_rotvec([0, pitch, 0])
        * Rotation.from_rotvec([roll, 0, 0])
    )
    found = Rotation.from_rotvec(euler_to_rotation_vector(np.array([[roll, pitch, yaw]]))[0])
    assert (found.inv() * expected).magnitude() < 1e-12


def test_rotation_vectors_turn_as_the_library_of_ros_does():
    """`sxyz` of transforms3d is what tf_transformations, and Interbotix's arms with it, call roll, pitch and yaw."""
    euler_rad = np.random.default_rng(0).uniform(-3.1, 3.1, (200, 3))
    expected = np.array([euler2mat(*angles, axes="sxyz") for angles in euler_rad])
    found = Rotation.from_rotvec(euler_to_rotation_vector(euler_rad)).as_matrix()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_camera_that_was_not_there_is_refused(bridge):
    with pytest.raises(DataError, match="image_3 is one colour"):
        open_source(bridge, camera="image_3").episode(0)


@pytest.fixture
def copied(bridge, tmp_path):
    shutil.copytree(bridge / "1.0.0", tmp_path / "set")
    for path in (tmp_path / "set").iterdir():
        path.chmod(0o644)
    (tmp_path / "set").chmod(0o755)
    return tmp_path / "set", next((tmp_path / "set").glob("*.tfrecord-*"))


def test_flipped_bit_is_refused(copied):
    path, shard = copied
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    source = RldsSource(path)
    with pytest.raises(DataError, match="does not match its checksum"):
        source.episode(0)
    assert len(source.episode(1)) == 10


def test_damaged_length_is_refused(copied):
    path, shard = copied
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match="damaged header"):
        RldsSource(path)


def test_cut_shard_is_refused(copied):
    path, shard = copied
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"record 14 .* is cut short"):
        RldsSource(path)


def test_missing_records_are_refused(copied):
    path, shard = copied
    from lapa_core.data.tfrecord import index_records

    last = index_records(shard)[-1]
    shard.write_bytes(shard.read_bytes()[: last.offset - 12])
    with pytest.raises(DataError, match=r"14 records, dataset_info\.json says 15"):
        RldsSource(path)


def test_missing_shard_is_refused(copied):
    path, shard = copied
    shard.unlink()
    with pytest.raises(DataError, match=r"shards \[0\] of 1"):
        RldsSource(path)


def test_unknown_rate_must_be_given(copied, caplog):
    path, _ = copied
    info = json.loads((path / "dataset_info.json").read_text())
    (path / "dataset_info.json").write_text(json.dumps({**info, "name": "other"}))
    with pytest.raises(DataError, match="give a positive fps"):
        RldsSource(path)
    assert RldsSource(path, fps=10).episode(0).fps == 10.0
    assert caplog.text.count("'other' is not known here; its actions are taken as") == 1


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("dataset_info.json", ("splits",), 3),
        ("dataset_info.json", ("splits", 0), None),
        ("dataset_info.json", ("splits", 0, "shardLengths"), ["many"]),
        ("features.json", ("featuresDict", "features", "steps", "sequence"), 3),
        ("features.json", (*STEP_FEATURES, "action", "tensor"), 3),
    ],
)
def test_metadata_of_odd_types_are_refused(copied, name, keys, value):
    path, _ = copied
    document = json.loads((path / name).read_text())
    entry = document
    for key in keys[:-1]:
        entry = entry[key]
    entry[keys[-1]] = value
    (path / name).write_text(json.dumps(document))
    with pytest.raises(DataError, match=name):
        RldsSource(path)


def test_actions_of_another_shape_are_left_out_and_the_pictures_read(copied, caplog):
    path, _ = copied
    document = json.loads((path / "features.json").read_text())
    entry = document
    for key in (*STEP_FEATURES, "action", "tensor"):
        entry = entry[key]
    entry["shape"]["dimensions"] = ["14"]
    (path / "features.json").write_text(json.dumps(document))
    episode = RldsSource(path).episode(0, 32)
    assert episode.actions is None
    assert episode.states is not None
    assert "actions have shape ['14'] and are left out" in caplog.text


@pytest.mark.parametrize("data", [b"\x0a\xff", b"\x0b", b"\x08\x01", b"\x0a\x02\x08"])
def test_other_messages_are_refused(data):
    with pytest.raises(DataError, match=r"no tf\.train\.Example"):
        parse_example(data)
