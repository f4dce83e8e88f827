# SPDX-License-Identifier: Apache-2.0
"""`lapa laq probe`: how much of the true motion the codes hold.

Reconstruction error and perplexity do not say whether codes are actions (facts/sim.md). The probe does: ridge
regression from one-hot codes to the true displacement between the frames, fitted on half of the held-out
episodes and scored on the other half, beside what the pixels themselves give and beside two floors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.label_config import LaqProbeConfig
from lapa_core.laq.usage import code_usage
from lapa_core.train.pairs import actions_between

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


def motion(store: FrameStore, pairs_P2: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the commanded motion (P, 7) between the frames of each pair, in the order of `ACTION_NAMES`.

    Deltas add up [m, rad]; the gripper, an absolute opening, keeps its last value (`actions_between`).

    Raises:
        DataError: the data set has no actions.
    """
    if store.actions is None:
        raise DataError(
            "the probe needs true motion, but the data set has no actions; record one with "
            "`lapa sim collect --with-actions`"
        )
    return actions_between(store.actions, pairs_P2).astype(np.float64)


def displacement(
    store: FrameStore, pairs_P2: NDArray[np.int64], position_N2: NDArray | None
) -> NDArray[np.float64]:
    """Return the x, y displacement (P, 2) [m] between the frames of each pair.

    It is that of the measured positions (N, 2) where they are known, else the sum of the commanded deltas.

    Raises:
        DataError: the data set has neither.
    """
    if position_N2 is None:
        return motion(store, pairs_P2)[:, :2]
    return position_N2[pairs_P2[:, 1]] - position_N2[pairs_P2[:, 0]]


class RidgeR2(NamedTuple):
    """Held-out R2 of a ridge regression; 1 is perfect, 0 is the mean, below 0 is worse than the mean."""

    joint: float
    """Over several columns together, weighted by their variance."""
    each_A: NDArray[np.float64]
    """Of each column, with a penalty of its own; NaN for a column that is constant where it is scored."""


def ridge_r2(
    x_PF: NDArray[np.float64],
    y_PA: NDArray[np.float64],
    episode_P: NDArray[np.int64],
    joint: Sequence[int] | None = None,
) -> RidgeR2:
    """Fit on every other episode, score on the rest; the penalty is chosen on a fifth of the fitting episodes.

    Args:
        x_PF: what is known of each pair.
        y_PA: what is to be predicted.
        episode_P: episode of each pair; even ones fit, and of those every fifth chooses the penalty.
        joint: columns behind the joint figure, of one unit; None takes all.
    """
    fit, tune = episode_P % 2 == 0, episode_P % 10 == 0
    columns = slice(None) if joint is None else list(joint)
    residual_RA, _ = _ridge_errors(x_PF, y_PA, fit & ~tune, tune)
    error_RA, total_A = _ridge_errors(x_PF, y_PA, fit, ~fit)
    best = residual_RA[:, columns].sum(axis=1).argmin()
    missed = error_RA[best, columns].sum() / total_A[columns].sum()
    each_A = error_RA[residual_RA.argmin(axis=0), np.arange(y_PA.shape[1])]
    share_A = np.divide(each_A, total_A, out=np.full(len(total_A), np.nan), where=total_A > 0)
    return RidgeR2(float(1.0 - missed), 1.0 - share_A)


def _ridge_errors(
    x_PF: NDArray[np.float64],
    y_PA: NDArray[np.float64],
    fit: NDArray[np.bool_],
    score: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the squared errors per penalty and column (R, A), and those of the scored pairs' own mean (A,)."""
    x_mean, y_mean = x_PF[fit].mean(axis=0), y_PA[fit].mean(axis=0)
    x = x_PF[fit] - x_mean
    eigenvalues_E, basis_FE = _principal(x)
    inner_EA = basis_FE.T @ (x.T @ (y_PA[fit] - y_mean))
    turned_PE = (x_PF[score] - x_mean) @ basis_FE
    wanted_PA = y_PA[score] - y_mean
    errors = [
        np.square(wanted_PA - turned_PE @ (inner_EA / (eigenvalues_E + ridge)[:, None])).sum(axis=0)
        for ridge in RIDGES
    ]
    return np.stack(errors), np.square(y_PA[score] - y_PA[score].mean(axis=0)).sum(axis=0)


def _principal(x_PF: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues (E,) and vectors (F, E) of x^T x that are not 0, by the cheaper way."""
    if len(x_PF) < x_PF.shape[1]:
        _, singular_E, basis_EF = np.linalg.svd(x_PF, full_matrices=False)
        return np.square(singular_E), basis_EF.T
    eigenvalues_F, basis_FF = np.linalg.eigh(x_PF.T @ x_PF)
    return eigenvalues_F.clip(min=0.0), basis_FF


def small(frames_PSSC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the frames averaged to 16 x 16 px, flat, in [0, 1]: (P, 768).

    Raises:
        DataError: the frames are smaller than that.
    """
    if frames_PSSC.shape[1] < PIXEL_SIDE:
        raise DataError(
            f"the model's frames have {frames_PSSC.shape[1]} px; the probe compares with pixels at {PIXEL_SIDE} px "
            "and needs at least as many"
        )
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
    first_small = small(first)
    usage = code_usage(latent.codes_BK, model.codes)
    shuffled = np.random.default_rng(0).permutation(len(hot))
    return ProbeReport(
        r2_codes=ridge_r2(hot, y_P2, episode_P).joint,
        r2_vectors=ridge_r2(vectors, y_P2, episode_P).joint,
        r2_pixel_difference=ridge_r2(small(second) - first_small, y_P2, episode_P).joint,
        r2_first_frame=ridge_r2(first_small, y_P2, episode_P).joint,
        r2_shuffled_codes=ridge_r2(hot[shuffled], y_P2, episode_P).joint,
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
