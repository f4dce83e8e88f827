# SPDX-License-Identifier: Apache-2.0
"""What a model takes beside one image and an instruction: further cameras, the measured state, earlier codes.

Shapes: N frames of the data set, B frames of a batch, S side [px], D numbers of the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.data.episode import open_source
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.train.augment import to_float
from lapa_core.vla.base import VlaModel
from lapa_core.vla.config import ModelConfig
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.history import HISTORY, NO_CODE

STATE = "state"
"""Name of the state among the extra inputs; but for it and `HISTORY` they are cameras."""


def load_extra(
    data: Path, sizes: ModelConfig, store: FrameStore, *, progress: bool = False
) -> dict[str, NDArray[Any]]:
    """Return the extra inputs of every frame: (N, S, S, 3) uint8 per further camera, (N, D) float32 `state`.

    Args:
        data: the data set that `store` was read from.
        sizes: says which extra inputs the model takes; most take none.
        store: the frames of the first camera.
        progress: show progress bars.

    Raises:
        DataError: the data set lacks one of them, or they do not belong to the same frames.
    """
    if not isinstance(sizes, HfConfig):
        return {}
    extra: dict[str, NDArray[Any]] = {}
    for camera in sizes.cameras[1:]:
        other = FrameStore.load(data, sizes.image_px, camera=camera, progress=progress)
        if not np.array_equal(other.episode_offsets, store.episode_offsets):
            raise DataError(f"camera {camera} of {data} has other episodes than its first camera")
        extra[camera] = other.frames
    if sizes.proprioception:
        extra[STATE] = _load_states(data, sizes.state_dim, len(store))
    return extra


def _load_states(data: Path, dim: int, count: int) -> NDArray[np.float32]:
    source, parts = open_source(data), []
    for index in range(len(source)):
        states_TD = source.episode(index, image_px=4).states
        if states_TD is None or states_TD.shape[1] != dim:
            found = "no state" if states_TD is None else f"a state of {states_TD.shape[1]} numbers"
            raise DataError(f"episode {index} of {data} has {found}; this model takes one of {dim}")
        parts.append(states_TD)
    states_ND = np.concatenate(parts).astype(np.float32)
    if len(states_ND) != count:
        raise DataError(f"{data} has {len(states_ND)} states for {count} frames")
    return states_ND


def extra_tensors(
    extra: Mapping[str, NDArray[Any]], device: torch.device
) -> dict[str, Tensor] | None:
    """Return a batch of extra inputs as `VlaModel.prepare` takes them: cameras as images, the others as they are."""
    tensors = {}
    for name, rows in extra.items():
        tensor = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
        tensors[name] = tensor if name in (STATE, HISTORY) else to_float(tensor)
    return tensors or None


def blank_extra(model: VlaModel) -> dict[str, NDArray[Any]]:
    """Return extra inputs of one frame with nothing in them, to warm a policy up."""
    blank: dict[str, NDArray[Any]] = {}
    if model.earlier is not None:
        blank[HISTORY] = np.full(model.earlier.shape, NO_CODE, np.int64)
    if isinstance(sizes := model.config, HfConfig):
        frame = np.zeros((sizes.image_px, sizes.image_px, 3), np.uint8)
        blank |= dict.fromkeys(sizes.cameras[1:], frame)
        if sizes.proprioception:
            blank[STATE] = np.zeros(sizes.state_dim, np.float32)
    return blank
