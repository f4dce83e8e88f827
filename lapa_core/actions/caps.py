# SPDX-License-Identifier: Apache-2.0
"""Continuous actions inside what an arm takes in one step. Imports numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cut_to_caps(
    actions_H7: NDArray[np.float64], *, max_translation_m: float, max_rotation_rad: float
) -> NDArray[np.float64]:
    """Return actions with translations and rotations no longer than the caps, and openings in 0 to 1.

    What is too long keeps its direction.
    """
    cut_H7 = actions_H7.astype(np.float64)
    for part, cap in ((slice(0, 3), max_translation_m), (slice(3, 6), max_rotation_rad)):
        length_H1 = np.linalg.norm(cut_H7[:, part], axis=1, keepdims=True)
        cut_H7[:, part] *= cap / np.maximum(length_H1, cap)
    cut_H7[:, 6] = cut_H7[:, 6].clip(0.0, 1.0)
    return cut_H7
