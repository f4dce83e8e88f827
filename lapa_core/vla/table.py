# SPDX-License-Identifier: Apache-2.0
"""`lapa vla table`: decode actions from predicted codes by a table, with no further training of the network.

Each code gets the action that goes with it in the labelled episodes: ridge regression from the pretrained
model's code probabilities to the true actions. The policy's action is the mean of the table under the
predicted probabilities, rounded to the nearest bin. Few labels suffice, since the table has few numbers.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.actions.bins import ActionBins
from lapa_core.data.store import FrameStore
from lapa_core.train.augment import load_images
from lapa_core.vla.checkpoint import POLICY, PRETRAINED, LoadedVla, load_vla, policy_facts, save_vla
from lapa_core.vla.config import TableConfig
from lapa_core.vla.decode.choose import greedy
from lapa_core.vla.labelled import labelled_subset, learnt_contract, true_actions

__all__ = ["TableConfig", "fit", "main"]

RIDGE = 1.0
"""Penalty in [labelled frames]: a code seen in fewer frames than this stays near the mean action."""


@torch.no_grad()
def code_probabilities(loaded: LoadedVla, store: FrameStore, device: str) -> NDArray[np.float64]:
    """Return the model's code probabilities for every frame, flattened over tokens (N, K * codes).

    Of a sequence model: each token's, given the likeliest tokens before it.
    """
    model, parts = loaded.model, []
    for rows in np.array_split(np.arange(len(store)), -(-len(store) // 256)):
        words = [store.instructions[episode] for episode in store.episode_ids[rows]]
        inputs = model.read(model.prepare(load_images(store.frames, rows, device), words))
        logits_BKN = model.latent_logits(inputs, model.decode(inputs, "latent", greedy))
        parts.append(logits_BKN.softmax(dim=-1).flatten(1).cpu().double().numpy())
    return np.concatenate(parts)


def fit_table(probability_NQ: NDArray[np.float64], actions_NA: NDArray[np.float32]) -> Tensor:
    """Return the table (Q + 1, A): the action of every code, relative to the mean action in the last row."""
    mean_A = actions_NA.mean(axis=0, dtype=np.float64)
    gram = probability_NQ.T @ probability_NQ + RIDGE * np.eye(probability_NQ.shape[1])
    table_QA = np.linalg.solve(gram, probability_NQ.T @ (actions_NA - mean_A))
    return torch.from_numpy(np.concatenate([table_QA, mean_A[None]])).float()


def fit(config: TableConfig, store: FrameStore | None = None) -> Path:
    """Fit the table, save the policy and return its directory; `store` replaces the data set on disk."""
    contract = learnt_contract(config.data, config.contract)
    loaded = load_vla(config.init, PRETRAINED, config.device)
    store = store or FrameStore.load(config.data, loaded.model.config.image_px)
    store = labelled_subset(store, config.episodes, config.subset_seed)
    actions_NA = true_actions(store)
    table_QA = fit_table(code_probabilities(loaded, store, config.device), actions_NA)
    bins = ActionBins.fit(actions_NA, config.max_bins)
    settings = {
        k: str(v) if isinstance(v, Path) else v
        for k, v in asdict(config).items()
        if k not in ("out", "device")
    }
    facts = {**policy_facts(contract, bins, config.temperature), "training": settings}
    facts["instructions"] = sorted(set(store.instructions))[:100]
    return save_vla(
        config.out / "checkpoint",
        POLICY,
        loaded.model,
        table_QA,
        **facts,
    )


def main(config: TableConfig) -> None:
    """Fit, and say where the policy is."""
    print(f"policy: {fit(config)}")
