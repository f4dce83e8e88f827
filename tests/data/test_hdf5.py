# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in HDF5: robomimic's scaled deltas, ALOHA's joints by kinematics, refusals."""

import io
import json
from itertools import pairwise

import h5py
import modern_robotics
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from lapa_core.data.convert import import_source
from lapa_core.data.episode import open_source
from lapa_core.data.hdf5 import AlohaSource, RobomimicSource
from lapa_core.errors import DataError
from lapa_core.robot.models import get_arm_model

OSC = {"type": "OSC_POSE", "control_delta": True, "output_max": [0.05] * 3 + [0.5] * 3}


def write_robomimic(path, stamps, *, controller=OSC, demos=2, length=5, text=None, shape=None):
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        env = {
            "env_name": "Lift",
            "env_kwargs": {"control_freq": 20, "controller_configs": controller},
        }
        data.attrs["env_args"] = json.dumps(env)
        if text is not None:
            data.attrs["problem_info"] = json.dumps({"language_instruction": text})
        for number in (10, 9, 2)[:demos]:  # sorted by number, not by text
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = generator.uniform(-1, 1, shape or (length, 7))
            for place, camera in enumerate(("agentview", "robot0_eye_in_hand")):
                demo[f"obs/{camera}_image"] = stamps.clip(number * 16 + 4096 * place, length)
    return path


def test_the_only_arm_of_several_is_the_arm(tmp_path, stamps):
    write_robomimic(tmp_path / "a.hdf5", stamps, controller=[OSC])
    assert np.abs(open_source(tmp_path / "a.hdf5").episode(0).actions[:, :3]).max() <= 0.05


def write_aloha(path, stamps, *, length=6, jpeg=False):
    generator = np.random.default_rng(1)
    qpos = generator.uniform(-0.5, 0.5, (length, 14))
    action = qpos + generator.uniform(-0.02, 0.02, (length, 14))
    qpos[:, [6, 13]], action[:, [6, 13]] = 0.25, np.linspace(0, 1, length)[:, None]
    frames = stamps.clip(7, length)
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file["observations/qpos"], file["action"] = qpos, action
        if jpeg:
            streams = []
            for frame in frames:
                Image.fromarray(frame).save(stream := io.BytesIO(), "JPEG", quality=95)
                streams.append(np.frombuffer(stream.getvalue(), np.uint8))
            longest = max(map(len, streams))
            frames = np.stack([np.pad(one, (0, longest - len(one))) for one in streams])
        file["observations/images/cam_high"] = frames
    return path, qpos, action


def test_robomimic_deltas_become_metres_and_radians(tmp_path, stamps):
    write_robomimic(tmp_path / "lift.hdf5", stamps, text="lift the cube")
    source = open_source(tmp_path, camera="agentview")
    assert isinstance(source, RobomimicSource)
    assert [source.origin(i) for i in range(2)] == ["lift.hdf5/demo_9", "lift.hdf5/demo_10"]
    episode = source.episode(0)
    with h5py.File(tmp_path / "lift.hdf5") as file:
        stored = file["data/demo_9/actions"][()]
    np.testing.assert_allclose(episode.actions[:, :3], stored[:, :3] * 0.05, atol=1e-7)
    np.testing.assert_allclose(episode.actions[:, 3:6], stored[:, 3:6] * 0.5, atol=1e-7)
    np.testing.assert_allclose(episode.actions[:, 6], (1 - stored[:, 6]) / 2, atol=1e-7)
    assert (episode.instruction, episode.fps) == ("lift the cube", 20.0)
    assert stamps.read_all(episode.frames) == [144 + k for k in range(5)]


def test_robosuite_15_lists_the_parts_of_a_body(tmp_path, stamps):
    part = {"type": "OSC_POSE", "input_type": "delta", "output_max": 0.1}
    write_robomimic(tmp_path / "a.hdf5", stamps, controller={"body_parts": {"right": part}})
    episode = open_source(tmp_path / "a.hdf5").episode(0)
    assert np.abs(episode.actions[:, :6]).max() <= 0.1


@pytest.mark.parametrize("text", ['"lift the cube"', ["lift the cube"], list("lift the cube")])
def test_liberos_instruction_is_joined_and_loses_its_quotes(tmp_path, stamps, text):
    write_robomimic(tmp_path / "a.hdf5", stamps, text=text)
    assert open_source(tmp_path).episode(0).instruction == "lift the cube"


@pytest.mark.parametrize(
    ("controller", "reason"),
    [
        ({**OSC, "control_delta": False}, "control_delta False"),
        ({**OSC, "type": "JOINT_POSITION"}, "'JOINT_POSITION'"),
        ({"type": "OSC_POSE", "control_delta": True}, "output_max None"),
        ({}, "controller is None"),
        ([OSC, OSC], "controller is None"),
        ("OSC_POSE", "controller is None"),
        ({**OSC, "output_max": {"x": 0.05}}, "output_max {'x': 0.05}"),
        ({**OSC, "output_max": [0.05, 0.05]}, r"output_max \[0.05, 0.05\]"),
        ({**OSC, "output_min": [-0.05] * 3 + [-0.1] * 3}, "output_min"),
    ],
)
def test_controllers_without_a_scale_in_metres_are_refused(tmp_path, stamps, controller, reason):
    write_robomimic(tmp_path / "a.hdf5", stamps, controller=controller)
    with pytest.raises(DataError, match=reason):
        open_source(tmp_path).episode(0)


@pytest.mark.parametrize("jpeg", [False, True])
def test_aloha_joints_become_deltas_by_the_textbooks_kinematics(tmp_path, stamps, jpeg):
    _, qpos, action = write_aloha(tmp_path / "episode_0.hdf5", stamps, jpeg=jpeg)
    source = open_source(tmp_path, arm="left")
    assert isinstance(source, AlohaSource)
    episode = source.episode(0)
    model = get_arm_model("vx300s")

    def pose(joints):
        return modern_robotics.FKinSpace(model.home_pose_44, model.screws_66.T, joints)

    poses = [pose(qpos[0, :6]), *(pose(row[:6]) for row in action)]
    for row, (before, after) in zip(episode.actions, pairwise(poses), strict=True):
        np.testing.assert_allclose(row[:3], after[:3, 3] - before[:3, 3], atol=1e-6)
        turn = Rotation.from_matrix(after[:3, :3] @ before[:3, :3].T).as_rotvec()
        np.testing.assert_allclose(row[3:6], turn, atol=1e-6)
    np.testing.assert_allclose(episode.actions[:, 6], action[:, 6], atol=1e-6)
    np.testing.assert_allclose(episode.states[:, 6], 0.25)
    assert episode.fps == 50.0
    assert stamps.read_all(episode.frames) == [7 + k for k in range(6)]
    other = open_source(tmp_path, arm="right").episode(0)
    assert np.abs(other.actions - episode.actions).max() > 1e-3


def test_import_takes_both_cameras_and_written_instructions(tmp_path, stamps):
    (tmp_path / "in").mkdir()
    write_robomimic(tmp_path / "in/lift.hdf5", stamps, demos=3)
    (tmp_path / "in/instructions.jsonl").write_text(
        json.dumps({"video": "lift.hdf5/demo_2", "instruction": "lift it"}) + "\n"
    )
    cameras = ("agentview", "robot0_eye_in_hand")
    report = import_source(tmp_path / "in", tmp_path / "set", cameras=cameras)
    assert (report.num_episodes, report.refusals) == (3, [])
    again = import_source(tmp_path / "in", tmp_path / "set", cameras=cameras)
    assert (again.num_episodes, again.num_known) == (0, 3)
    written = open_source(tmp_path / "set", camera="robot0_eye_in_hand")
    assert written.episode(0).instruction == "lift it"
    assert stamps.read_all(written.episode(0).frames) == [4096 + 32 + k for k in range(5)]


def test_files_that_cannot_be_right_are_refused(tmp_path, stamps):
    write_robomimic(tmp_path / "a.hdf5", stamps, shape=(4, 7))
    with pytest.raises(DataError, match=r"actions have shape \(4, 7\)"):
        open_source(tmp_path).episode(0)
    with pytest.raises(DataError, match="camera 'wrist' is unknown"):
        open_source(tmp_path, camera="wrist")
    whole = (tmp_path / "a.hdf5").read_bytes()
    (tmp_path / "a.hdf5").write_bytes(whole[:600])
    with pytest.raises(DataError, match="cannot be read"):
        open_source(tmp_path)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["other"] = np.zeros(3)
    with pytest.raises(DataError, match="robomimic has `data`"):
        open_source(tmp_path)


@pytest.mark.parametrize("signature", [b"TREE", b"HEAP", b"SNOD"])
def test_a_file_whose_inside_is_damaged_is_refused(tmp_path, stamps, signature):
    path = write_robomimic(tmp_path / "a.hdf5", stamps)
    data = path.read_bytes()
    assert signature in data
    path.write_bytes(data.replace(signature, b"ROTT"))
    with pytest.raises(DataError, match=r"a\.hdf5 cannot be read"):
        open_source(tmp_path).episode(0)
