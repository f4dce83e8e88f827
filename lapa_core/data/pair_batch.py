# SPDX-License-Identifier: Apache-2.0
"""One step's frame pairs, wherever they come from. Imports numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class PairBatch(NamedTuple):
    """One process's part of one step's pairs: B pairs of S x S images, A action dimensions."""

    x0_BSSC: NDArray[np.uint8]
    """First frames, RGB."""
    x1_BSSC: NDArray[np.uint8]
    """Later frames, RGB."""
    actions_BA: NDArray[np.float32] | None = None
    """What was done between the two frames, where the source has actions: see
    `lapa_core.train.pairs.actions_between`."""
    first_B3: NDArray[np.int64] | None = None
    """Which the first frames are, in a stream: corpus, number of the clip in its index, number of the frame."""
