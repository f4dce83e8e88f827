# SPDX-License-Identifier: Apache-2.0
"""The labelled frames: which episodes are drawn, their true actions, the actions that follow, and latent codes.

Shapes: N frames, K latent tokens, H actions of a chunk, A action dimensions (7).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.data import lerobot_format as fmt
from lapa_core.data.store import FrameStore
from lapa_core.errors import ContractError, DataError
from lapa_core.laq.labels import LatentLabels
from lapa_core.robot.contract import load_contract
from lapa_core.vla.objective import UNLABELLED

UNSAID_CONTRACT = "wx250s_sim"
"""What a policy carries whose data set names no contract."""


def learnt_contract(data: Path, given: str) -> str:
    """Return the robot contract that a policy learns from a data set: the given one, else the data set's own.

    Args:
        data: LeRobot data set whose `info.json` may say under which contract it was recorded, or any other.
        given: name or path; "" takes the data set's, and `UNSAID_CONTRACT` where it names none.

    Raises:
        ContractError: the data set was recorded under another contract, or no such contract.
    """
    said: dict[str, Any] = {}
    if (data / fmt.INFO_PATH).is_file():
        said = fmt.read_info(data).get(fmt.OWN_KEY) or {}
    name = given or str(said.get("contract_name") or "") or UNSAID_CONTRACT
    robot = load_contract(name)
    recorded = said.get("contract_hash")
    if recorded and recorded != robot.hash:
        raise ContractError(
            f"{data} was recorded under contract {said.get('contract_name')} {str(recorded)[:12]}, {name} is "
            f"{robot.hash[:12]}: the arm would run another policy than it was shown; give the contract that it was "
            "recorded under, or record again"
        )
    return name


def true_actions(store: FrameStore) -> NDArray[np.float32]:
    """Return the actions (N, 7).

    Raises:
        DataError: the data set has none.
    """
    if store.actions is None:
        raise DataError("the data set has no actions; finetuning needs episodes recorded with them")
    return store.actions


def labelled_subset(store: FrameStore, episodes: int, seed: int) -> FrameStore:
    """Draw labelled episodes; with one seed, a smaller draw is part of a larger one.

    Raises:
        DataError: the data set has no actions or too few episodes.
    """
    true_actions(store)
    return store.subset(drawn_episodes(store, episodes, seed))


def drawn_episodes(store: FrameStore, episodes: int, seed: int) -> NDArray[np.int64]:
    """Return the numbers of the drawn episodes, in their order; 0 draws all.

    Raises:
        DataError: the data set has too few episodes.
    """
    if episodes > store.num_episodes:
        raise DataError(
            f"{episodes} labelled episodes are asked for, the data set has {store.num_episodes}; give --episodes 0 "
            "for all"
        )
    order = np.random.default_rng(seed).permutation(store.num_episodes)
    return order[: episodes or store.num_episodes]


def frame_rows(store: FrameStore, episodes_D: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows (N,) of the frames of some episodes, in the order of `FrameStore.subset`."""
    offsets = store.episode_offsets
    return np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in episodes_D])


def frame_codes(labels: LatentLabels, store: FrameStore) -> NDArray[np.int64]:
    """Return the codes (N, K) of every frame of a data set; `UNLABELLED` where a frame has none."""
    codes_NK = np.full((len(store), labels.codes_PK.shape[1]), UNLABELLED, dtype=np.int64)
    codes_NK[labels.pairs_P2[:, 0]] = labels.codes_PK
    return codes_NK


def future_actions(store: FrameStore, steps: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the action of every frame and of those after it, (N, H, A), and which lie in its episode, (N, H)."""
    rows_NH = np.arange(len(store))[:, None] + np.arange(steps)
    end_N1 = store.episode_offsets[1:][store.episode_ids][:, None]
    known_NH = rows_NH < end_N1
    return true_actions(store)[np.minimum(rows_NH, end_N1 - 1)], known_NH
