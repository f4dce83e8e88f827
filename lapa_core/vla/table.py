# SPDX-License-Identifier: Apache-2.0
"""`lapa vla table`: decode actions from predicted codes by a table, with no further training of the network.

Each code gets the action that goes with it in the labelled episodes: ridge regression from the pretrained
model's code probabilities to the true actions. The policy's action is the mean of the table under the
predicted probabilities, rounded to the nearest bin. Few labels suffice, since the table has few numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
from lapa_core.vla.extra import extra_tensors, load_extra
from lapa_core.vla.history import HISTORY, CodeMemory, periods_of
from lapa_core.vla.labelled import (
    drawn_episodes,
    frame_rows,
    labelled_subset,
    learnt_contract,
    true_actions,
)

__all__ = ["TableConfig", "fit", "main"]

AT_ONCE = 256
"""Frames of one pass."""
RIDGE = 1.0
"""Penalty in [labelled frames]: a code seen in fewer frames than this stays near the mean action."""


@torch.no_grad()
def code_probabilities(
    loaded: LoadedVla, store: FrameStore, extra: Mapping[str, NDArray[Any]]
) -> NDArray[np.float64]:
    """Return the model's code probabilities for every frame, flattened over tokens (N, K * codes).

    Of a sequence model: each token's, given the likeliest tokens before it. A model that reads the codes of earlier
    frames is shown those that it named itself, as the policy will be.
    """
    tokens, codes = loaded.model.need_latent()
    named = NamedCodes(loaded, store, extra)
    probability_NQ = np.zeros((len(store), tokens * codes))
    for rows_B in row_batches(store, in_turn=loaded.model.earlier is not None):
        probability_NQ[rows_B] = named(rows_B)
    return probability_NQ


def row_batches(store: FrameStore, *, in_turn: bool) -> Iterator[NDArray[np.int64]]:
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

    def __init__(self, loaded: LoadedVla, store: FrameStore, extra: Mapping[str, NDArray[Any]]):
        """Take the frames and what there is beside them (`lapa_core.vla.extra`), a row per frame.

        Each episode is remembered apart, where the model reads the codes of earlier frames.
        """
        self._model, self._store, self._extra = loaded.model, store, extra
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
        beside = {name: rows[rows_B] for name, rows in self._extra.items()}
        if memories:
            beside[HISTORY] = np.stack([memory.codes() for memory in memories])
        images_BCHW = load_images(self._store.frames, rows_B, model.device)
        others = extra_tensors(beside, model.device)
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
    extra = load_extra(config.data, loaded.model.config, store)
    drawn = labelled_subset(store, config.episodes, config.subset_seed)
    rows_N = frame_rows(store, drawn_episodes(store, config.episodes, config.subset_seed))
    extra = {name: rows[rows_N] for name, rows in extra.items()}
    actions_NA = true_actions(drawn)
    table_QA = fit_table(code_probabilities(loaded, drawn, extra), actions_NA)
    bins = ActionBins.fit(actions_NA, config.max_bins)
    settings = {
        k: str(v) if isinstance(v, Path) else v
        for k, v in asdict(config).items()
        if k not in ("out", "device")
    }
    facts = {**policy_facts(contract, bins, config.temperature), "training": settings}
    if config.near_codes_m:
        facts["near_codes_m"] = config.near_codes_m
    facts |= {name: loaded.config[name] for name in ("laq", "gap_s") if name in loaded.config}
    facts["instructions"] = sorted(set(drawn.instructions))[:100]
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
