# SPDX-License-Identifier: Apache-2.0
"""Training from an index of clips and from a mixture: the same loop, the same resume."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lapa_core.data.index import IndexConfig
from lapa_core.data.index import main as make_index
from lapa_core.data.video import VideoQuality, encode_video
from lapa_core.errors import CheckpointError, ContractError
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.train import train
from lapa_core.laq.train_config import LaqTrainConfig
from lapa_core.laq.train_data import LaqData
from tests.toy import TOY_PATCH, Interrupted, die_after_step, toy_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with videos, their index, and a mixture of it with itself at another gap."""
    root = tmp_path_factory.mktemp("streams")
    store = toy_store(episodes=6)
    (root / "videos").mkdir()
    for episode in range(store.num_episodes):
        frames = store.subset([episode]).frames
        encode_video(root / "videos" / f"{episode}.mp4", frames, 5, VideoQuality())
    make_index(IndexConfig(data=root / "videos", out=root / "index", progress=False))
    corpora = [{"data": "index", "gap_s": gap, "weight": 5 * gap} for gap in (0.2, 0.6)]
    (root / "mixture.yaml").write_text(json.dumps({"corpora": corpora}))
    return root


def recipe(folder: Path, name: str, out: Path) -> LaqTrainConfig:
    return LaqTrainConfig(
        data=folder / name, model=TOY_PATCH, gap_s=0.4, steps=4, batch_size=8, save_every=2, log_every=1,
        workers=0, progress=False, out=out,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["index", "mixture.yaml"])
def test_a_stream_trains_and_a_resumed_run_sees_the_same_pairs(folder, tmp_path, monkeypatch, name):
    straight = train(recipe(folder, name, tmp_path / "straight"))
    with monkeypatch.context() as patch:
        die_after_step(patch, 1)
        with pytest.raises(Interrupted):
            train(recipe(folder, name, tmp_path / "resumed"))
    resumed = train(recipe(folder, name, tmp_path / "resumed"))
    assert [row for row in straight.history if row[0] >= 2] == resumed.history
    (one, facts), (other, _) = (load_laq(run.checkpoint) for run in (straight, resumed))
    assert facts["gap_s"] == {"index": 0.4, "mixture.yaml": 0.6}[name], "of the heaviest corpus"
    one, other = one.state_dict(), other.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_changed_mixture_is_not_resumed(folder, tmp_path):
    path = folder / "other.yaml"
    path.write_text((folder / "mixture.yaml").read_text())
    train(recipe(folder, "other.yaml", tmp_path))
    path.write_text(path.read_text().replace("0.6", "0.4"))
    with pytest.raises(CheckpointError, match="stream_sha256"):
        train(recipe(folder, "other.yaml", tmp_path))


def test_a_mixture_of_another_index_is_another_mixture(folder, tmp_path):
    shutil.copytree(folder / "index", tmp_path / "index")
    shutil.copy(folder / "mixture.yaml", tmp_path)
    data = LaqData.load(recipe(tmp_path, "mixture.yaml", tmp_path / "run"), None, None)
    before = data.identity()
    with (tmp_path / "index" / "index.json").open("a") as file:
        file.write(" ")
    assert data.identity() != before


def test_a_mixture_of_a_folder_that_changed_is_another_mixture(folder, tmp_path, monkeypatch):
    """Without an index of its own, which is made anew behind the scenes."""
    monkeypatch.setenv("LAPA_CACHE", str(tmp_path / "cache" / "frames"))
    shutil.copytree(folder / "videos", tmp_path / "videos")
    mixture = {"corpora": [{"data": "videos", "gap_s": 0.2}]}
    (tmp_path / "mixture.yaml").write_text(json.dumps(mixture))
    data = LaqData.load(recipe(tmp_path, "mixture.yaml", tmp_path / "run"), None, None)
    before = data.identity()
    assert data.identity() == before
    (tmp_path / "videos" / "5.mp4").unlink()
    assert data.identity() != before


def test_a_stream_can_be_cut_to_its_first_clips(folder, tmp_path):
    with pytest.raises(ContractError, match="max_episodes"):
        replace(recipe(folder, "index", tmp_path), max_episodes=-1)
    few = train(replace(recipe(folder, "index", tmp_path / "few"), max_episodes=1)).history
    assert few != train(recipe(folder, "index", tmp_path / "all")).history
