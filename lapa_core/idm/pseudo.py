# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels: the actions that an inverse dynamics model sees in videos (VPT; Baker et al., 2022).

Shapes: N frames, B pairs of one pass, S image side [px], A action dimensions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lapa_core.data.store import FrameStore
from lapa_core.idm.model import InverseDynamics
from lapa_core.image import preprocess
from lapa_core.train.augment import to_float

AT_ONCE = 256
"""Pairs of one pass."""


class PseudoLabelled(NamedTuple):
    """Videos with the actions that a model sees in them."""

    store: FrameStore
    """The frames that have a later one; the data set's own actions, if any, are not in it."""
    rows_N: NDArray[np.int64]
    """Which frames of the data set they are."""


def pseudo_labelled(store: FrameStore, model: InverseDynamics, gap_s: float) -> PseudoLabelled:
    """Label every frame that has another one a control period later; episodes without any are left out.

    Args:
        store: videos; their frames are scaled down to the model's size to be looked at.
        model: trained on pairs as far apart.
        gap_s: that control period [s].

    Raises:
        DataError: no two frames lie so far apart.
    """
    pairs_P2 = store.valid_pairs(gap_s)
    rows_N = pairs_P2[:, 0]
    episodes, counts = np.unique(store.episode_ids[rows_N], return_counts=True)
    frames_only = replace(store, actions=None)
    labelled = FrameStore(
        frames=frames_only.frames[rows_N],
        episode_offsets=np.cumsum([0, *counts], dtype=np.int64),
        instructions=[store.instructions[episode] for episode in episodes],
        fps=store.fps,
        timestamps_s=store.timestamps_s[rows_N],
        actions=seen_actions(frames_only, pairs_P2, model),
    )
    return PseudoLabelled(labelled, rows_N)


@torch.no_grad()
def seen_actions(
    store: FrameStore, pairs_P2: NDArray[np.int64], model: InverseDynamics
) -> NDArray[np.float32]:
    """Return the actions (P, A) that a model sees between the frames of pairs [m, rad, opening]."""
    device = next(model.parameters()).device
    parts = []
    for pairs_B2 in np.array_split(pairs_P2, -(-len(pairs_P2) // AT_ONCE)):
        small = [
            np.stack([preprocess(np.asarray(store.frames[row]), model.image_px) for row in rows])
            for rows in pairs_B2.T
        ]
        x0, x1 = (to_float(torch.from_numpy(frames).to(device)) for frames in small)
        parts.append(model(x0, x1).cpu().numpy())
    return np.concatenate(parts)
