# SPDX-License-Identifier: Apache-2.0
"""`lapa vla table`: decode actions from predicted codes by a table, with no further training of the network.

Each code gets the action that goes with it in the labelled episodes: ridge regression from the pretrained
model's code probabilities to the true actions. The policy's action is the mean of the table under the
predicted probabilities, rounded to the nearest bin. Few labels suffice, since the table has few numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from lapa_core.vla.extra import extra_tensors
from lapa_core.vla.history import HISTORY, CodeMemory, periods_of
from lapa_core.vla.labelled import labelled_subset, learnt_contract, true_actions

__all__ = ["TableConfig", "fit", "main"]

AT_ONCE = 256
"""Frames of one pass."""
RIDGE = 1.0
"""Penalty in [labelled frames]: a code seen in fewer frames than this stays near the mean action."""


@torch.no_grad()
def code_probabilities(loaded: LoadedVla, store: FrameStore, device: str) -> NDArray[np.float64]:
    """Return the model's code probabilities for every frame, flattened over tokens (N, K * codes).

    Of a sequence model: each token's, given the likeliest tokens before it. A model that reads the codes of earlier
    frames is shown those that it named itself, as the policy will be.
    """
    tokens, codes = loaded.model.need_latent()
    named = NamedCodes(loaded, store, device)
    probability_NQ = np.zeros((len(store), tokens * codes))
    for rows_B in batches(store, in_turn=loaded.model.earlier is not None):
        probability_NQ[rows_B] = named(rows_B)
    return probability_NQ


def batches(store: FrameStore, *, in_turn: bool) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of all frames, some at a time; in turn, those of an episode after one another."""
    if not in_turn:
        yield from np.array_split(np.arange(len(store)), -(-len(store) // AT_ONCE))
        return
    starts_E, ends_E = store.episode_offsets[:-1], store.episode_offsets[1:]
    for first in range(0, store.num_episodes, AT_ONCE):
        part = slice(first, first + AT_ONCE)
        for t in range(int((ends_E - starts_E)[part].max())):
            rows_E = starts_E[part] + t
            yield rows_E[rows_E < ends_E[part]]


class NamedCodes:
    """What a pretrained model says of the frames of a data set."""

    def __init__(self, loaded: LoadedVla, store: FrameStore, device: str):
        """Remember each episode apart, where the model reads the codes of earlier frames."""
        self._model, self._store, self._device = loaded.model, store, device
        self._memories: list[CodeMemory] = []
        if loaded.model.earlier is not None:
            most, tokens = loaded.model.earlier.shape
            periods = periods_of(loaded.config["gap_s"], store.fps)
            self._memories = [CodeMemory(most, tokens, periods) for _ in store.instructions]

    def __call__(self, rows_B: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probabilities (B, K * codes) of some frames, and remember their likeliest codes."""
        model, episode_B = self._model, self._store.episode_ids[rows_B]
        words = [self._store.instructions[episode] for episode in episode_B]
        memories = [self._memories[episode] for episode in episode_B] if self._memories else []
        told = {HISTORY: np.stack([memory.codes() for memory in memories])} if memories else {}
        images_BCHW = load_images(self._store.frames, rows_B, self._device)
        others = extra_tensors(told, model.device)
        inputs = model.read(model.prepare(images_BCHW, words, others))
        codes_BK = model.decode(inputs, "latent", greedy)
        for memory, codes in zip(memories, codes_BK.tolist(), strict=bool(memories)):
            memory.remember(tuple(codes))
        logits_BKN = model.latent_logits(inputs, codes_BK)
        return logits_BKN.softmax(dim=-1).flatten(1).cpu().double().numpy()


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
    facts |= {name: loaded.config[name] for name in ("laq", "gap_s") if name in loaded.config}
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
