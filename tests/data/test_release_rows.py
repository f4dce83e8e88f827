# SPDX-License-Identifier: Apache-2.0
"""The release's JSON lines: its prompt, its Euler angles, its ragged table of bins."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from lapa_core.data.episode import open_source
from lapa_core.data.release_rows import ReleaseExportConfig, main, release_actions
from lapa_core.errors import DataError


def angles(euler_N3, vectors_N3):
    """Angle between each pair of turns [rad]."""
    turns = Rotation.from_euler("xyz", euler_N3) * Rotation.from_rotvec(vectors_N3).inv()
    return turns.magnitude()


def test_rows_pictures_and_bins(make_set, stamps, tmp_path, capsys):
    main(ReleaseExportConfig(data=make_set(), out=tmp_path / "out", image_px=64))
    assert "19 rows" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "out/finetune.jsonl").read_text().splitlines()]
    source = open_source(tmp_path / "set")
    actions = np.concatenate([source.episode(i).actions for i in range(3)])

    assert set(rows[0]) == {"id", "image", "instruction", "raw_actions", "action", "fields"}
    assert rows[7]["id"] == "ep_00001_1"
    assert rows[7]["instruction"] == (
        "<s> You are a helpful assistant. USER: What action should the robot take to `task 1` ASSISTANT:"
    )
    raw = np.array([row["raw_actions"] for row in rows])
    np.testing.assert_allclose(raw[:, :3], actions[:, :3], atol=1e-12)
    assert angles(raw[:, 3:6], actions[:, 3:6]).max() < 1e-6
    assert stamps.read(np.asarray(Image.open(tmp_path / "out" / rows[7]["image"]))) == 17

    table = list(csv.reader((tmp_path / "out/bins.csv").read_text().splitlines()))
    edges = [[float(cell) for cell in line if cell] for line in table[1:]]
    assert table[0] == [str(n) for n in range(max(map(len, edges)))]
    assert edges[6] == [-0.5, 0.5, 1.5]
    for row in rows:  # as their loader finds a bin: an interval that holds the value
        for value, index, own in zip(row["raw_actions"], row["action"], edges, strict=True):
            assert own[index] <= value <= own[index + 1]


def test_release_actions_are_exact_for_large_turns():
    turns = np.random.default_rng(0).uniform(-1.4, 1.4, (50, 3))
    rows = np.concatenate([np.zeros((50, 3)), turns, np.full((50, 1), 0.7)], axis=1)
    written = release_actions(rows)
    assert angles(written[:, 3:6], turns).max() < 1e-6
    assert (written[:, 6] == 1.0).all()


def test_sets_without_actions_and_full_folders_are_refused(make_set, stamps, write_video, tmp_path):
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips/a.mp4", stamps.clip(0, 5), np.arange(5) / 5)
    with pytest.raises(DataError, match="has no actions"):
        main(ReleaseExportConfig(data=tmp_path / "clips", out=tmp_path / "out"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        main(ReleaseExportConfig(data=make_set(), out=tmp_path / "full"))
