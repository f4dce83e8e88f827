# SPDX-License-Identifier: Apache-2.0
"""`lapa laq probe`: how much of the true motion the codes hold.

Reconstruction error and perplexity do not say whether codes are actions (facts/sim.md). The probe does: ridge
regression from one-hot codes to the true displacement between the frames, fitted on half of the held-out
episodes and scored on the other half, beside what the pixels themselves give and beside two floors.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.label_config import LaqProbeConfig
from lapa_core.laq.usage import code_usage

__all__ = ["LaqProbeConfig", "ProbeReport", "main", "probe", "probe_model"]

PIXEL_SIDE = 16
"""Side to which frames are averaged for the pixel references [px]."""
RIDGES = tuple(10.0**power for power in range(8))
"""Penalties that are tried on a fifth of the fitting pairs; the largest amount to predicting the mean."""


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """R2 of predicting the displacement in x and y, variance-weighted; 1 is perfect, 0 is the mean."""

    r2_codes: float
    """From the one-hot codes."""
    r2_vectors: float
    """From the continuous vectors before quantisation."""
    r2_pixel_difference: float
    """From the difference of the two frames: a reference for what a linear map of pixels holds."""
    r2_first_frame: float
    """From the first frame only: what can be guessed without seeing any motion (floor)."""
    r2_shuffled_codes: float
    """From the codes of other pairs (floor)."""
    perplexity_per_token: tuple[float, ...]
    """exp(entropy) of each token."""
    joint_perplexity: float
    """exp(entropy) of all tokens together."""
    joint_count: int
    """Different code tuples seen."""
    pairs: int
    """Pairs that scored the probe."""


def displacement(
    store: FrameStore, pairs_P2: NDArray[np.int64], position_N2: NDArray | None
) -> NDArray[np.float64]:
    """Return the x, y displacement (P, 2) [m] between the frames of each pair.

    It is that of the measured positions (N, 2) where they are known, else the sum of the commanded deltas.

    Raises:
        DataError: the data set has neither.
    """
    if position_N2 is None:
        if store.actions is None:
            raise DataError(
                "the probe needs true motion, but the data set has no actions; record one with "
                "`lapa sim collect --with-actions`"
            )
        deltas_N2 = store.actions[:-1, :2].astype(np.float64)
        position_N2 = np.concatenate([np.zeros((1, 2)), np.cumsum(deltas_N2, axis=0)])
    return position_N2[pairs_P2[:, 1]] - position_N2[pairs_P2[:, 0]]


def _ridge_r2(
    x_PF: NDArray[np.float64], y_P2: NDArray[np.float64], episode_P: NDArray[np.int64]
) -> float:
    """Fit on every other episode, score on the rest; the penalty is chosen on a fifth of the fitting episodes."""
    fit = episode_P % 2 == 0
    tune = episode_P % 10 == 0
    scores = [_ridge_score(x_PF, y_P2, fit & ~tune, tune, ridge) for ridge in RIDGES]
    return _ridge_score(x_PF, y_P2, fit, ~fit, RIDGES[int(np.argmax(scores))])


def _ridge_score(
    x_PF: NDArray[np.float64],
    y_P2: NDArray[np.float64],
    fit: NDArray[np.bool_],
    score: NDArray[np.bool_],
    ridge: float,
) -> float:
    x_mean, y_mean = x_PF[fit].mean(axis=0), y_P2[fit].mean(axis=0)
    x = x_PF[fit] - x_mean
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ (y_P2[fit] - y_mean))
    error = y_P2[score] - y_mean - (x_PF[score] - x_mean) @ weights
    return float(
        1.0 - np.square(error).sum() / np.square(y_P2[score] - y_P2[score].mean(axis=0)).sum()
    )


def _small(frames_PSSC: NDArray[np.uint8]) -> NDArray[np.float64]:
    factor = frames_PSSC.shape[1] // PIXEL_SIDE
    side = factor * PIXEL_SIDE
    blocks = frames_PSSC[:, :side, :side].reshape(-1, PIXEL_SIDE, factor, PIXEL_SIDE, factor, 3)
    return (blocks.mean(axis=(2, 4)) / 255.0).reshape(len(frames_PSSC), -1)


def one_hot(codes_PK: NDArray[np.int64], codes: int) -> NDArray[np.float64]:
    """Return (P, K * N) with a one per token."""
    return np.eye(codes)[codes_PK].reshape(len(codes_PK), -1)


def probe_model(
    model: LatentActionModel, gap_s: float, store: FrameStore, position_N2: NDArray | None = None
) -> ProbeReport:
    """Probe a model on episodes that it was not trained on.

    Args:
        model: trained latent action model.
        gap_s: its time between the two frames of a pair [s].
        store: episodes with actions, unless positions are given.
        position_N2: measured x, y of the end effector at every frame [m].

    Raises:
        DataError: no true motion, or fewer than four episodes.
    """
    if store.num_episodes < 4:
        raise DataError(
            f"the probe needs at least 4 episodes, half to fit and half to score; given {store.num_episodes}"
        )
    pairs_P2 = store.valid_pairs(gap_s)
    y_P2 = displacement(store, pairs_P2, position_N2)
    episode_P = store.episode_ids[pairs_P2[:, 0]]
    first, second = store.frames[pairs_P2[:, 0]], store.frames[pairs_P2[:, 1]]
    latent = model.encode(first, second)
    hot = one_hot(latent.codes_BK, model.codes)
    vectors = latent.vectors_BKD.reshape(len(hot), -1).astype(np.float64)
    first_small = _small(first)
    usage = code_usage(latent.codes_BK, model.codes)
    shuffled = np.random.default_rng(0).permutation(len(hot))
    return ProbeReport(
        r2_codes=_ridge_r2(hot, y_P2, episode_P),
        r2_vectors=_ridge_r2(vectors, y_P2, episode_P),
        r2_pixel_difference=_ridge_r2(_small(second) - first_small, y_P2, episode_P),
        r2_first_frame=_ridge_r2(first_small, y_P2, episode_P),
        r2_shuffled_codes=_ridge_r2(hot[shuffled], y_P2, episode_P),
        perplexity_per_token=usage.perplexity_per_token,
        joint_perplexity=usage.joint_perplexity,
        joint_count=usage.joint_count,
        pairs=int((episode_P % 2 == 1).sum()),
    )


def probe(config: LaqProbeConfig, store: FrameStore | None = None) -> ProbeReport:
    """Probe a checkpoint; `store` replaces the data set on disk."""
    model, facts = load_laq(config.checkpoint, config.device)
    store = store or FrameStore.load(config.data, model.image_px)
    last = config.first_episode + config.episodes if config.episodes else store.num_episodes
    return probe_model(
        model,
        facts["gap_s"],
        store.subset(range(config.first_episode, min(last, store.num_episodes))),
    )


def main(config: LaqProbeConfig) -> None:
    """Probe, print the report as one JSON object, and write it where asked."""
    text = json.dumps(
        {"checkpoint": str(config.checkpoint), "data": str(config.data), **asdict(probe(config))}
    )
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(text + "\n")
    print(text)
