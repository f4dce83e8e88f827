# SPDX-License-Identifier: Apache-2.0
"""`lapa bench laq`: both loops train, figures fit together, one JSON object last."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lapa_core.bench.laq import (
    BenchLaqConfig,
    by_turns,
    main,
    our_step,
    plain_step,
    random_batches,
    recipe_of,
    step_operations,
)
from lapa_core.errors import ContractError

SMALL = BenchLaqConfig(preset="debug_paper", batch_size=4, rounds=1, steps=1)


def test_the_last_line_is_one_json_object(capsys):
    main(SMALL)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    images = result["images_per_second"]
    assert result["ratio"] == pytest.approx(images["ours"] / images["plain"], rel=0.01)
    assert set(images) == {"ours", "plain", "labelling"}
    assert 0 < result["share_of_ceiling"] < 1
    assert (result["precision"], result["compiled"]) == ("fp32", False)


def test_both_loops_take_the_same_first_step():
    recipe = recipe_of(SMALL)
    batches = random_batches(recipe)
    plain, model = plain_step(recipe, batches)
    ours, objective = our_step(recipe, batches)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    for step in (plain, ours):
        step()
    theirs = torch.cat([p.detach().flatten() for p in model.parameters()])
    mine = torch.cat([p.detach().flatten() for p in objective.model.parameters()])
    assert (theirs - before).abs().max() > 1e-4
    # Adam's first step is its rate times the gradient's sign, which flips where a gradient is nearly zero.
    assert ((theirs - mine).abs() < 1e-4).double().mean() > 0.98


def test_turns_alternate_and_the_median_counts():
    called = []
    steps = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    assert set(by_turns(steps, "cpu", rounds=3, repeat=2)) == {"a", "b"}
    assert called == ["a", "a", "b", "b"] * 3


def test_operations_grow_with_the_batch():
    recipe = recipe_of(SMALL)
    batch = random_batches(recipe)[0]
    half = batch._replace(x0_BSSC=batch.x0_BSSC[:2], x1_BSSC=batch.x1_BSSC[:2])
    whole, part = (step_operations(recipe, b) for b in (batch, half))
    assert np.isclose(whole, 2 * part, rtol=0.02)


@pytest.mark.slow
def test_our_loop_is_no_slower_on_a_cpu(capsys):
    """The conv design gains about a third from channels-last weights; a busy machine may cost some of it."""
    main(BenchLaqConfig(preset="sim", batch_size=32, rounds=5, steps=3))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ratio"] > 0.95


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ContractError, match="sim_paper"):
        BenchLaqConfig(preset="papre")
