# SPDX-License-Identifier: Apache-2.0
"""Windows of frames: one, and those that follow it in its episode, a period apart each.

Shapes: W windows, F future frames, B windows of a batch, S image side [px].
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.data.store import FrameStore, episode_pairs
from lapa_core.errors import DataError


class Windows(NamedTuple):
    """Which frames follow which."""

    first_W: NDArray[np.int64]
    """Frame at which each window begins; the next one is always there."""
    later_WF: NDArray[np.int64]
    """Frames 1 to F periods later; where the episode has ended, or lacks one, the first frame again."""
    known_WF: NDArray[np.bool_]
    """Which of them are there."""


class WindowBatch(NamedTuple):
    """Frames of some windows."""

    first_B3SS: Tensor
    """Current frames in [0, 1]."""
    later_BF3SS: Tensor
    """Future frames in [0, 1]."""
    known_BF: Tensor
    """Which of them are there."""


def find_windows(store: FrameStore, frames: int, period_s: float) -> Windows:
    """Return the windows of all episodes.

    Args:
        store: episodes.
        frames: F.
        period_s: time between the frames of a window [s]; the nearest frame is taken, as in `FrameStore.valid_pairs`.

    Raises:
        DataError: no frame has another one a period later.
    """
    later_NF = np.full((len(store), frames), -1, dtype=np.int64)
    for start, stop in pairwise(store.episode_offsets):
        times_s = store.timestamps_s[start:stop]
        for ahead in range(frames):
            pairs_P2 = episode_pairs(times_s, (ahead + 1) * period_s) + start
            later_NF[pairs_P2[:, 0], ahead] = pairs_P2[:, 1]
    first_W = np.flatnonzero(later_NF[:, 0] >= 0)
    if not len(first_W):
        raise DataError(
            f"no frame has another one {period_s} s later in its episode, at {store.fps:g} Hz; give a period between "
            "half a frame's and the length of an episode"
        )
    later_WF = later_NF[first_W]
    known_WF = later_WF >= 0
    return Windows(first_W, np.where(known_WF, later_WF, first_W[:, None]), known_WF)


def load_windows(
    store: FrameStore, windows: Windows, chosen_B: NDArray[np.int64], device: torch.device
) -> WindowBatch:
    """Read the frames of some windows."""
    rows_BT = np.concatenate([windows.first_W[chosen_B, None], windows.later_WF[chosen_B]], axis=1)
    frames_BTSSC = torch.from_numpy(store.frames[rows_BT]).to(device)
    images_BTCSS = frames_BTSSC.permute(0, 1, 4, 2, 3).float().div_(255.0)
    known_BF = torch.from_numpy(windows.known_WF[chosen_B]).to(device)
    return WindowBatch(images_BTCSS[:, 0], images_BTCSS[:, 1:], known_BF)
