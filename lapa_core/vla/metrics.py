# SPDX-License-Identifier: Apache-2.0
"""What predictions are worth: accuracy per token beside the share of its commonest id, and errors in [m] and [rad].

A policy may name 90 % of its bins right and fail always, where 90 % of the labels are one bin (an arm that mostly
stands still in a dimension). So no accuracy is given without the share that naming the commonest id would get.

Shapes: N samples, K tokens (latent tokens, or action dimensions).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.actions.bins import ActionBins
from lapa_core.actions.delta import ACTION_NAMES


@dataclass(frozen=True, kw_only=True)
class TokenReport:
    """How often tokens are named right."""

    accuracy: dict[str, float]
    """Share named right, per token."""
    majority: dict[str, float]
    """Share of the commonest id, per token: what naming it always would get."""

    def __str__(self) -> str:
        """Return one row per token, in percent."""
        return "\n".join(
            f"{name:10s} {100 * value:5.1f} % right, {100 * self.majority[name]:5.1f} % by the commonest"
            for name, value in self.accuracy.items()
        )


@dataclass(frozen=True, kw_only=True)
class ActionError:
    """Mean distance of predicted from true actions, and the same of the training set's mean action."""

    translation_m: float
    """Length of the translation's error [m]."""
    rotation_rad: float
    """Length of the rotation vector's error [rad]."""
    gripper: float
    """Error of the gripper's opening, 0 to 1."""
    translation_m_of_mean: float
    """Of the mean action [m]."""
    rotation_rad_of_mean: float
    """Of the mean action [rad]."""
    gripper_of_mean: float
    """Of the mean action."""

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"error      {1e3 * self.translation_m:.1f} mm, {self.rotation_rad:.3f} rad, gripper {self.gripper:.2f}; "
            f"the mean action's {1e3 * self.translation_m_of_mean:.1f} mm, {self.rotation_rad_of_mean:.3f} rad, "
            f"gripper {self.gripper_of_mean:.2f}"
        )


def majority_share(ids_NK: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the commonest id of each token, (K,)."""
    return np.array([np.bincount(column).max() / len(column) for column in ids_NK.T])


def token_names(tokens: int) -> tuple[str, ...]:
    """Return the names of latent tokens."""
    return tuple(f"token{k}" for k in range(tokens))


def token_report(
    predicted_NK: NDArray[np.int64], ids_NK: NDArray[np.int64], names: tuple[str, ...]
) -> TokenReport:
    """Compare predicted with true ids."""
    right_K = (predicted_NK == ids_NK).mean(axis=0)
    return TokenReport(
        accuracy=dict(zip(names, right_K.tolist(), strict=True)),
        majority=dict(zip(names, majority_share(ids_NK).tolist(), strict=True)),
    )


def action_error(predicted_NA: NDArray[np.float64], true_NA: NDArray[np.float32]) -> ActionError:
    """Compare predicted with true actions [m, rad, opening]."""
    own = _distances(predicted_NA, true_NA)
    mean = _distances(np.broadcast_to(true_NA.mean(axis=0), true_NA.shape), true_NA)
    return ActionError(
        translation_m=own[0],
        rotation_rad=own[1],
        gripper=own[2],
        translation_m_of_mean=mean[0],
        rotation_rad_of_mean=mean[1],
        gripper_of_mean=mean[2],
    )


def decode_rows(bins: ActionBins, bins_NA: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the actions (N, 7) of rows of bins."""
    return np.stack(
        [centre[column] for centre, column in zip(bins.centres, bins_NA.T, strict=True)], axis=1
    )


def as_row(
    name: str, values_K: Tensor | NDArray[np.float64], names: tuple[str, ...]
) -> dict[str, Tensor]:
    """Return `name/token` -> value, for a row of metrics."""
    return {f"{name}/{token}": torch.as_tensor(values_K[k]) for k, token in enumerate(names)}


def _distances(
    predicted_NA: NDArray[np.float64], true_NA: NDArray[np.float32]
) -> tuple[float, float, float]:
    error_NA = predicted_NA.astype(np.float64) - true_NA
    assert error_NA.shape[1] == len(ACTION_NAMES)
    lengths = (
        np.linalg.norm(error_NA[:, part], axis=1).mean() for part in (slice(0, 3), slice(3, 6))
    )
    translation_m, rotation_rad = (float(value) for value in lengths)
    return translation_m, rotation_rad, float(np.abs(error_NA[:, 6]).mean())
