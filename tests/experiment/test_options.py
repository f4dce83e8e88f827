# SPDX-License-Identifier: Apache-2.0
"""The table of options: the same time for each, resumable, and a reason where a row was not measured."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lapa_core.errors import ContractError
from lapa_core.experiment.options import SUITE, LaqOptionsConfig, main
from lapa_core.experiment.options_cells import (
    option_cells,
    option_key,
    option_recipe,
    paid_steps,
    recipe_hash,
)
from lapa_core.experiment.options_recipes import LABELLED_EPISODES, OPTIONS
from lapa_core.experiment.run import pending_cells, read_results
from lapa_core.laq.checkpoint import build_laq


def write_results(config, step_cpu_s=0.1, r2=(0.5, 0.7, 0.9)):
    probes = ("r2_codes", "r2_vectors", "r2_pixel_difference", "r2_first_frame", "joint_perplexity")
    rows = []
    for cell in option_cells(config):
        own = 2.0 if cell.name == "cost/paper" else 1.0
        figures = {"step_cpu_s": own * step_cpu_s, "reference_step_cpu_s": step_cpu_s}
        if cell.name.startswith("laq/"):
            figures = {**dict.fromkeys(probes, r2[cell.seed]), "steps": 900, "cpu_s": 91.0}
        rows.append({"cell": cell.name, "key": option_key(config, cell), "figures": figures})
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_builds_and_has_a_price(name):
    recipe = option_recipe(LaqOptionsConfig(), name)
    assert sum(p.numel() for p in build_laq(recipe.model).parameters()) > 1000
    assert (OPTIONS[name].price or name) in OPTIONS


def test_no_two_options_are_the_same_recipe():
    hashes = [(recipe_hash(option.recipe), option.times) for option in OPTIONS.values()]
    assert len(set(hashes)) == len(hashes)


def test_needs_come_first_and_seeds_are_those_asked_for(tmp_path):
    config = LaqOptionsConfig(out=tmp_path, options=("default", "paper"), seeds=2, first_seed=7)
    cells = list(option_cells(config))
    names = [cell.name for cell in cells]
    for index, cell in enumerate(cells):
        assert set(cell.needs) <= set(names[:index])
    assert {cell.seed for cell in cells if cell.name.startswith("laq/")} == {7, 8}
    assert [name for name in names if name.startswith("cost/")] == ["cost/default", "cost/paper"]


def test_finished_cells_are_skipped_until_the_recipe_or_the_budget_changes(tmp_path, monkeypatch):
    config = LaqOptionsConfig(out=tmp_path, options=("default",), domains=("hard",), seeds=1)
    write_results(config)
    assert pending_cells(config, SUITE) == []
    longer = replace(config, seconds=200.0)
    assert [cell.name for cell in pending_cells(longer, SUITE)] == ["laq/hard/default/s0"]
    other = replace(
        OPTIONS["default"], recipe=replace(OPTIONS["default"].recipe, learning_rate=1e-4)
    )
    monkeypatch.setitem(OPTIONS, "default", other)
    names = [cell.name for cell in pending_cells(config, SUITE)]
    assert names == ["cost/default", "laq/hard/default/s0"]


def test_the_table_has_means_over_seeds_and_says_why_a_row_is_empty(tmp_path, capsys):
    config = LaqOptionsConfig(
        out=tmp_path, options=("default", "paper_dinov2"), domains=("hard",), summary=True
    )
    write_results(config)
    main(config)
    text = capsys.readouterr().out
    assert "| default | keypoint differences" in text
    assert "| 3 | 0.700 +- 0.115 |" in text
    assert "| paper_dinov2 | paper, target DINOv2 features | not measured" in text
    with_weights = replace(config, dinov2="/models/dinov2")
    assert "laq/hard/paper_dinov2/s0" in {cell.name for cell in option_cells(with_weights)}


def test_steps_are_what_the_time_pays_for(tmp_path):
    config = LaqOptionsConfig(out=tmp_path, options=("default", "paper"), seconds=90.0)
    write_results(config, step_cpu_s=0.1)
    assert paid_steps(config, "default") == 900
    assert paid_steps(config, "paper") == 450, "twice as dear"
    assert paid_steps(replace(config, steps=77), "paper") == 77
    assert paid_steps(replace(config, steps=77), "patch8_x10") == 770


def test_unknown_options_and_domains_are_refused():
    with pytest.raises(ContractError, match="default_head"):
        LaqOptionsConfig(options=("defualt",))
    with pytest.raises(ContractError, match="hard"):
        LaqOptionsConfig(domains=("harder",))
    with pytest.raises(ContractError, match="seconds"):
        LaqOptionsConfig(seconds=0.0)


@pytest.mark.slow
def test_an_option_is_trained_and_probed_on_the_hard_domain(tmp_path):
    config = LaqOptionsConfig(
        out=tmp_path, options=("default_head",), domains=("hard",), seeds=1, videos=6, probe_episodes=4,
        steps=3,
    )  # fmt: skip
    main(config)
    data, trained = read_results(tmp_path)
    assert data["figures"]["episodes"] == 6 + 4 + LABELLED_EPISODES
    assert trained["figures"]["steps"] == 3
    assert np.isfinite(trained["figures"]["r2_codes"])
    assert (tmp_path / "laq/hard/default_head/s0/action_head").is_dir()
