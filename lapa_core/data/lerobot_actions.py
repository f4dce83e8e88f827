# SPDX-License-Identifier: Apache-2.0
"""Which actions of a LeRobot data set are end-effector deltas, told by their names.

The format says nothing about what `action` means: seven joint targets have the shape of a delta. Imports numpy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.data import lerobot_format as fmt
from lapa_core.data.euler import deltas_from_euler

log = logging.getLogger(__name__)

EULER_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
"""Deltas as sets made from Open X-Embodiment name them, some with "d" or "delta_" before each but the last."""

DeltaReader = Callable[[NDArray[np.float32], str], NDArray[Any]]
"""From the rows (T, 7) of an episode and what to name in errors to deltas (T, 7) of ours."""


def action_names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a feature's numbers; official sets also have them as {"motors": [...]}."""
    names = feature.get("names") or ()
    parts = names.values() if isinstance(names, Mapping) else [names]
    return tuple(str(name) for part in parts if isinstance(part, list | tuple) for name in part)


def delta_reader(path: Path, features: fmt.Features) -> DeltaReader | None:
    """Return what turns the actions of a data set into deltas of ours; None where there are none, which is logged."""
    if fmt.ACTION not in features:
        return None
    feature = features[fmt.ACTION]
    names = action_names(feature) if list(feature["shape"]) == [len(ACTION_NAMES)] else ()
    if names == ACTION_NAMES:
        return lambda rows_T7, source: rows_T7
    plain = tuple(name.lower().removeprefix("delta_") for name in names)
    if plain in (EULER_NAMES, (*(f"d{name}" for name in EULER_NAMES[:6]), "gripper")):
        return deltas_from_euler
    log.warning(
        "%s: its actions, %s named %s, are no end-effector deltas; its episodes are read without actions. Name them %s "
        "in meta/info.json if they are metres, rotation vectors and an opening, or %s",
        path, feature["shape"], feature.get("names"), list(ACTION_NAMES), list(EULER_NAMES),
    )  # fmt: skip
    return None
