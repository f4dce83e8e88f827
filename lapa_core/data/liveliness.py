# SPDX-License-Identifier: Apache-2.0
"""Which rows of an episode stand still, and which are at the contract's caps. Imports numpy.

The judge of finished recordings and the recorder, while it records, go by this.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lapa_core.robot.contract import RobotContract

_STILL_M, _STILL_RAD, _STILL_GRIPPER = 1e-3, 5e-3, 0.02
"""A row that moves less than all of these stands still."""
_AT_CAP = 0.99
"""Share of a cap from which a delta counts as saturated."""


def stands_still(actions_T7: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each delta, in the order of `ACTION_NAMES`, whether it moves nothing."""
    gripper = np.abs(np.diff(actions_T7[:, 6], prepend=actions_T7[:1, 6]))
    still: NDArray[np.bool_] = (
        (_length(actions_T7[:, :3]) < _STILL_M)
        & (_length(actions_T7[:, 3:6]) < _STILL_RAD)
        & (gripper < _STILL_GRIPPER)
    )
    return still


def at_cap(actions_T7: NDArray[np.float64], contract: RobotContract) -> NDArray[np.bool_]:
    """Return for each delta whether its translation or rotation is the longest allowed: its operator wanted more."""
    moves = _length(actions_T7[:, :3]) >= _AT_CAP * contract.max_translation_m
    turns = _length(actions_T7[:, 3:6]) >= _AT_CAP * contract.max_rotation_rad
    saturated: NDArray[np.bool_] = moves | turns
    return saturated


def _length(vectors_T3: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(vectors_T3, axis=1)
