# SPDX-License-Identifier: Apache-2.0
"""Training under torchrun: two processes compute what one does, resume exactly, and leave one checkpoint."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lapa_core.data.video import VideoQuality, encode_video
from lapa_core.errors import SetupError
from lapa_core.laq.action_head import load_action_head
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.train import train
from tests.laq.together import BASE, CASES, run_case
from tests.torchrun import REPOSITORY, TOLERANCE, metrics, torchrun
from tests.toy import toy_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Folder of the runs of two processes."""
    folder = tmp_path_factory.mktemp("two")
    torchrun(2, REPOSITORY / "tests/laq/together.py", folder, cwd=folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(two, tmp_path, case):
    recipe = replace(CASES[case], out=tmp_path, parallel="ddp")
    train(recipe, toy_store(), toy_store(seed=1) if recipe.labelled else None)
    alone, together = metrics(tmp_path), metrics(two / case)
    assert len(alone) == len(together) == recipe.steps
    for mine, theirs in zip(alone, together, strict=True):
        assert theirs == pytest.approx(mine, rel=TOLERANCE, abs=1e-7)
    one, other = (load_laq(d / "checkpoint")[0].state_dict() for d in (tmp_path, two / case))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("case", ["ddp", "fsdp2"])
def test_a_stopped_run_of_two_goes_on_bit_for_bit(two, case):
    straight, resumed = two / case, two / f"{case}_resumed"
    assert metrics(resumed) == metrics(straight)
    one, other = (load_laq(d / "checkpoint")[0].state_dict() for d in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    heads = [load_action_head(d / "action_head")[0].state_dict() for d in (straight, resumed)]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_a_state_of_two_divided_processes_goes_on_in_one(two, tmp_path):
    shutil.copytree(two / "half", tmp_path / "run")
    run_case("ddp", tmp_path / "run")
    rows, straight = metrics(tmp_path / "run"), metrics(two / "fsdp2")
    assert rows[:2] == straight[:2], "those of the two processes"
    for mine, theirs in zip(rows, straight, strict=True):
        assert theirs == pytest.approx(mine, rel=TOLERANCE, abs=1e-7)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_command_under_torchrun_leaves_one_checkpoint(tmp_path, processes):
    store = toy_store(episodes=6)
    (tmp_path / "videos").mkdir()
    for episode in range(store.num_episodes):
        frames = store.subset([episode]).frames
        encode_video(tmp_path / "videos" / f"{episode}.mp4", frames, 5, VideoQuality())
    words = "laq train debug_paper --data videos --gap-s 0.4 --steps 2 --out run --no-progress"
    printed = torchrun(processes, "-m", "lapa_core", *words.split(), cwd=tmp_path)
    assert printed.count("latent action model: run/checkpoint") == 1
    assert load_laq(tmp_path / "run" / "checkpoint")[1]["gap_s"] == 0.4


def test_fsdp2_without_torchrun_says_how_to_start(tmp_path):
    with pytest.raises(SetupError, match="torchrun --nproc-per-node"):
        train(replace(BASE, out=tmp_path, parallel="fsdp2"), toy_store())
