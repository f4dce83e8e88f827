# SPDX-License-Identifier: Apache-2.0
"""A real, untrained policy checkpoint, small enough to make in every test run."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def save_toy_policy(directory: Path, contract: str = "wx250s_sim") -> Path:
    """Save a policy with random weights whose bins are small x and y steps; return the folder."""
    import torch

    from lapa_core.actions.bins import ActionBins
    from lapa_core.vla.base import make_model
    from lapa_core.vla.checkpoint import POLICY, policy_facts, save_vla
    from lapa_core.vla.config import TrunkConfig
    from lapa_core.vla.words import Vocabulary

    torch.manual_seed(0)
    actions_N7 = np.zeros((200, 7))
    actions_N7[:, :2] = np.random.default_rng(0).uniform(-0.02, 0.02, (200, 2))
    bins = ActionBins.fit(actions_N7, max_bins=8)
    text = Vocabulary.fit(["push the red block left"])
    model = make_model(TrunkConfig(width=8, blocks=1), text, bins=bins)
    return save_vla(directory, POLICY, model, **policy_facts(contract, bins, 0.0))
