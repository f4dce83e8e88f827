# SPDX-License-Identifier: Apache-2.0
"""A policy carries the contract that its data set was recorded under, and no other."""

from dataclasses import replace

import numpy as np
import pytest

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.checkpoint import load_config
from lapa_core.data.lerobot import LeRobotWriter
from lapa_core.data.lerobot_format import make_features
from lapa_core.errors import ContractError
from lapa_core.presets import VLA_FINETUNE
from lapa_core.robot.contract import load_contract
from lapa_core.vla import finetune
from lapa_core.vla.labelled import UNSAID_CONTRACT, learnt_contract


@pytest.fixture
def data_set(tmp_path):
    """A data set recorded under the contract wx250s, of two episodes."""
    contract = load_contract("wx250s")
    metadata = {"contract_name": contract.name, "contract_hash": contract.hash}
    features = make_features({"front": (64, 64)}, action_names=ACTION_NAMES)
    writer = LeRobotWriter(tmp_path / "set", fps=5, features=features, metadata=metadata)
    for number in range(2):
        actions = np.random.default_rng(number).uniform(-0.01, 0.01, (6, 7))
        actions[:, 6] = number
        frames = np.full((6, 64, 64, 3), 40 * number + 40, np.uint8)
        writer.add_episode({"front": frames}, instruction="push it", actions=actions)
    return tmp_path / "set"


def test_the_data_sets_own_contract_is_taken(data_set, tmp_path):
    config = replace(
        VLA_FINETUNE["debug"],
        data=data_set,
        init=None,
        out=tmp_path / "run",
        steps=2,
        head_steps=0,
        progress=False,
    )
    facts = load_config(finetune.train(config).checkpoint)
    assert (facts["contract"], facts["contract_hash"]) == ("wx250s", load_contract("wx250s").hash)


def test_another_contract_is_refused_before_anything_is_trained(data_set, tmp_path):
    config = replace(
        VLA_FINETUNE["debug"], data=data_set, init=None, out=tmp_path / "run", contract="wx250s_sim"
    )
    with pytest.raises(ContractError, match="was recorded under contract wx250s "):
        finetune.train(config)
    assert not (tmp_path / "run").exists()


def test_a_data_set_that_names_none_takes_what_is_given(tmp_path):
    assert learnt_contract(tmp_path, "vx300s") == "vx300s"
    assert learnt_contract(tmp_path, "") == UNSAID_CONTRACT
