# SPDX-License-Identifier: Apache-2.0
"""The experiment's cells: needs come first, finished ones are skipped, tables say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.data.lerobot import LeRobotWriter
from lapa_core.data.lerobot_format import make_features
from lapa_core.errors import ContractError, DataError
from lapa_core.experiment.cells import Cell, all_cells, run_data
from lapa_core.experiment.chart import panels, write_chart
from lapa_core.experiment.config import ExperimentConfig
from lapa_core.experiment.data import make_video_set
from lapa_core.experiment.run import cell_key, main, pending_cells, run_all
from lapa_core.experiment.summary import mean_error, summarise


def test_every_need_is_a_cell_and_names_are_unique():
    cells = list(all_cells(ExperimentConfig()))
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    assert {need for cell in cells for need in cell.needs} <= set(names)


def test_scratch_never_sees_a_video():
    cells = {cell.name: cell for cell in all_cells(ExperimentConfig())}
    assert cells["finetune/default/scratch/50/s0"].needs == ("data/labels",)


def test_only_runs_what_is_asked_and_what_it_needs(tmp_path):
    config = ExperimentConfig(out=tmp_path, only="finetune/default/lapa/50/s0")
    names = [cell.name for cell in pending_cells(config)]
    assert names == [
        "data/default",
        "data/labels",
        "laq/default/conv/s0",
        "pretrain/default/lapa/s0",
        "finetune/default/lapa/50/s0",
    ]


def test_finished_cells_are_skipped_but_not_under_other_labels(tmp_path):
    config = ExperimentConfig(out=tmp_path, only="finetune/default/scratch/50/s0")
    rows = [{"cell": cell.name, "key": cell_key(config, cell)} for cell in pending_cells(config)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert pending_cells(config) == []
    other = ExperimentConfig(out=tmp_path, only=config.only, labels=Path("recorded"))
    assert [cell.name for cell in pending_cells(other)] == ["data/labels", config.only]


def test_a_name_of_no_cell_and_the_summary_of_nothing_are_refused(tmp_path):
    with pytest.raises(ContractError, match=r"'lappa'.* data/default, "):
        pending_cells(ExperimentConfig(out=tmp_path, only="lappa"))
    with pytest.raises(DataError, match="holds no finished cell"):
        main(ExperimentConfig(out=tmp_path, summary=True))
    with pytest.raises(ContractError, match="pretrain_steps is -1"):
        ExperimentConfig(pretrain_steps=-1)


def test_longer_pretraining_makes_other_cells_of_all_that_is_pretrained():
    short, long = ExperimentConfig(), ExperimentConfig(pretrain_steps=9)
    kinds = {
        "/".join(cell.name.split("/")[:3:2])
        for cell in all_cells(long)
        if cell_key(short, cell) != cell_key(long, cell)
    }
    pretrained = {"pretrain", "finetune", "table"}
    lapa = {f"{kind}/{arm}" for kind in pretrained for arm in ("lapa", "lapa_paper")}
    others = {
        f"{kind}/{arm}"
        for kind in ("pretrain", "finetune")
        for arm in ("actionvla", "vpt", "openvla")
    }
    assert kinds == lapa | others


def test_mean_and_standard_error_over_seeds():
    assert mean_error([1.0, 2.0, 3.0]) == (2.0, pytest.approx(1 / 3**0.5))
    assert mean_error([4.0]) == (4.0, 0.0)


def test_tables_hold_the_figures():
    score = {"rate": 0.5, "episodes": 2, "successes": 1, "standard_error": 0.35}
    greedy = {**score, "rate": 0.25}
    figures = {"overall": score, "families": {"point": score}, "greedy": {"overall": greedy}}
    rows = [
        {
            "cell": f"finetune/default/lapa/50/s{seed}",
            "key": {"labels": "x", "videos": videos},
            "labels": 50,
            "figures": figures,
        }
        for videos in (20, 80)
        for seed in range(3)
    ]
    key = {"labels": "x", "videos": 80, "near_codes_m": 0.01, "table_temperature": 0.7}
    for longer in ({}, {"pretrain_steps": 9}):  # two recipes of one cell: two rows
        row = {"cell": "table/default/lapa/50/s0", "key": {**key, **longer}}
        rows.append({**row, "labels": 50, "figures": figures})
    text = summarise(rows)
    for videos in ("80 default", "80 default, 9 steps"):
        assert f"| x | {videos} | lapa | table near T=0.7, sampled | 50.0 +- 0.0 (1) |" in text
    for videos in (20, 80):
        assert f"| x | {videos} default | lapa | head, sampled | 50.0 +- 0.0 (3) |" in text
        assert f"| x | {videos} default | lapa | head, greedy | 25.0 +- 0.0 (3) |" in text


def test_what_is_known_before_finetuning_is_told_by_videos_and_labels():
    score = {"rate": 0.5}
    cells = {
        "idm/50": {"r2_displacement": 0.9},
        "seen/shifted/50": {"r2_displacement": -0.5},
        "pretrain/default/vpt/50": {"overall": score, "families": {"point": score}},
    }
    rows = [
        {"cell": f"{cell}/s{seed}", "key": {"videos": 20}, "labels": 50, "figures": figures}
        for cell, figures in cells.items()
        for seed in range(2)
    ]
    text = summarise(rows)
    assert "| default | 50 | 2 | 0.900 +- 0.000 |" in text
    assert "| shifted | 50 | 2 | -0.500 +- 0.000 |" in text
    assert (
        "| 20 default | vpt | seen by 50 episodes' model | 2 | 50.0 +- 0.0 | 50.0 +- 0.0 |" in text
    )


def test_the_chart_has_a_panel_per_kind_of_videos_and_the_table_made_last(tmp_path):
    score = {"rate": 0.5}
    figures = {"overall": score, "greedy": {"overall": score}}
    cells = {
        "finetune/default/scratch": {"videos": 20},
        "table/default/lapa": {"videos": 80, "table_temperature": 1.0},
        "finetune/shifted/lapa": {"videos": 20},
        "finetune/default/actionvla": {"videos": 80},
        "finetune/default/actionvla ": {"videos": 999},  # nothing of LAPA beside it
    }
    rows = [
        {"cell": f"{cell.strip()}/{count}/s0", "key": {"labels": "x", **key}, "labels": count, "figures": figures}
        for cell, key in cells.items()
        for count in (50, 100)
    ]  # fmt: skip
    newer = {**rows[2], "key": {**rows[2]["key"], "table_temperature": 0.7}}
    shown = {
        str(videos): [(name.arm, name.decoder + name.settings) for name in policies]
        for videos, policies in panels([*rows, newer]).items()
    }
    assert shown == {
        "80 default": [("lapa", "table T=0.7"), ("actionvla", "head"), ("scratch", "head")],
        "20 shifted": [("lapa", "head"), ("scratch", "head")],
    }
    chart = tmp_path / "results.png"
    assert write_chart(rows, chart)
    with Image.open(chart) as image:
        assert image.width > image.height > 200
    assert not write_chart(rows[:2], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_video_set_that_is_too_small_is_refused(tmp_path):
    made = {"seed": 1, "domain": "default", "image_px": 16, "workers": 1}
    folder = make_video_set(tmp_path / "videos", episodes=2, **made)
    assert make_video_set(folder, episodes=1, **made) == folder
    with pytest.raises(DataError, match="holds 2 episodes and 3 are needed"):
        make_video_set(folder, episodes=3, **made)


@pytest.mark.slow
def test_the_whole_experiment_runs_at_debug_size(tmp_path):
    config = ExperimentConfig(
        out=tmp_path,
        seeds=1,
        label_counts=(4,),
        videos=12,
        probe_episodes=6,
        rollouts=1,
        size="debug",
        pretrain_steps=15,
        workers=1,
    )
    assert run_all(config) == []
    assert pending_cells(config) == []
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {row["cell"] for row in rows} == {cell.name for cell in all_cells(config)}
    assert {r["figures"]["steps"] for r in rows if r["cell"].startswith("pretrain/")} == {15}


def test_labels_that_are_too_few_are_noticed_before_anything_is_trained(tmp_path):
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    writer = LeRobotWriter(
        tmp_path / "labels", fps=5, features=make_features({"front": (16, 16)}, action_names=ACTION_NAMES)
    )  # fmt: skip
    writer.add_episode({"front": frames}, instruction="point", actions=np.zeros((3, 7)))
    config = ExperimentConfig(out=tmp_path, labels=tmp_path / "labels", label_counts=(1, 2))
    with pytest.raises(DataError, match="holds 1 episodes"):
        run_data(config, Cell("data/labels", run_data))
