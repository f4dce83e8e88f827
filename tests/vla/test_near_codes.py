# SPDX-License-Identifier: Apache-2.0
"""A table's action around a drawn code: the mean of what is likely and near, in the engine as by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import ContractError
from lapa_core.vla.checkpoint import LoadedVla
from lapa_core.vla.config import TableConfig, TrunkConfig
from lapa_core.vla.engine import VlaEngine, near_weights
from lapa_core.vla.small import SmallVla

TABLE_QA = torch.zeros(4, 7)
TABLE_QA[:3, 0] = torch.tensor([0.010, 0.012, -0.030])


@pytest.mark.parametrize(("code", "widths"), [(0, [0.0, 0.2, 4.0]), (2, [4.0, 4.2, 0.0])])
def test_weights_fall_with_the_distance_of_the_translations(code, widths):
    probability_N = np.array([0.2, 0.6, 0.2])
    weight_N = probability_N * np.exp(-0.5 * np.square(widths))
    found_BKN = near_weights(
        torch.tensor(probability_N)[None, None], torch.tensor([[code]]), TABLE_QA, 0.01
    )
    assert found_BKN[0, 0].tolist() == pytest.approx((weight_N / weight_N.sum()).tolist(), rel=1e-5)


def test_each_token_has_its_own_codes():
    table_QA = torch.zeros(5, 7)
    table_QA[:4, 1] = torch.tensor([0.0, 0.001, 0.0, 0.5])
    weight_BKN = near_weights(torch.full((1, 2, 2), 0.5), torch.tensor([[1, 1]]), table_QA, 0.01)
    beside = np.exp(-0.5 * 0.1**2)
    expected = [beside / (1 + beside), 1 / (1 + beside), 0.0, 1.0]
    assert weight_BKN[0].flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_the_engine_takes_the_mean_of_the_near_codes():
    model = SmallVla.start(
        TrunkConfig(width=8, keypoints=4, text_dim=8, features=16), ["push"]
    ).eval()
    model.give_latent_head(1, 3)
    model.latent_head.linear.weight.data.zero_()
    model.latent_head.linear.bias.data = torch.log(torch.tensor([0.25, 0.75, 1e-12]))
    grid = np.linspace(-0.04, 0.04, 401)
    bins = ActionBins.fit(np.stack([grid, *[np.zeros(401)] * 6], axis=1), 256)
    config = {
        "bins": bins.to_dict(),
        "temperature": 1.0,
        "max_translation_m": 0.05,
        "max_rotation_rad": 0.25,
    }
    moves = {}
    for near_m in (0.0, 1.0):
        engine = VlaEngine(LoadedVla(model, {**config, "near_codes_m": near_m}, TABLE_QA))
        blank = np.zeros((64, 64, 3), np.uint8)
        moves[near_m] = sorted({engine.step(blank, "push").action_7[0] for _ in range(20)})
    bin_m = 0.08 / 256
    assert moves[0.0] == pytest.approx([0.010, 0.012], abs=bin_m)
    assert moves[1.0] == pytest.approx([0.25 * 0.010 + 0.75 * 0.012], abs=bin_m)


@pytest.mark.parametrize("value", [-0.01, float("nan"), float("inf")])
def test_a_distance_that_cannot_be_is_refused(value):
    with pytest.raises(ContractError, match="near_codes_m"):
        TableConfig(data=Path("toy"), init=Path("toy"), near_codes_m=value)


def test_without_sampling_there_is_no_drawn_code_to_be_near_to():
    with pytest.raises(
        ContractError, match=r"near_codes_m is 0.01, but temperature is 0.0, .*--temp"
    ):
        TableConfig(data=Path("toy"), init=Path("toy"), near_codes_m=0.01)
