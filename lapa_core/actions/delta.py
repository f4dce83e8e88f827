# SPDX-License-Identifier: Apache-2.0
"""The one action type of the project: an end-effector delta. Imports numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapa_core.errors import ActionError

ACTION_NAMES = ("dx", "dy", "dz", "rx", "ry", "rz", "gripper")
"""Order of the seven numbers wherever a delta is an array: [m, m, m, rad, rad, rad, 0 closed .. 1 open]."""


@dataclass(frozen=True, eq=False)
class EndEffectorDelta:
    """A relative motion of the end effector and an absolute gripper opening.

    It applies once, to the previous *commanded* pose: the translation is added along the axes of
    `base_link`; the rotation is composed on the left, about the end-effector point.

    Attributes:
        translation_m: (3,) along `base_link` axes [m].
        rotation_rad: (3,) rotation vector in `base_link` axes [rad].
        gripper: absolute opening, 0 closed to 1 open.

    Raises:
        ActionError: a value is not finite, a shape is not (3,), or the gripper is outside [0, 1].
    """

    translation_m: NDArray[np.float64]
    rotation_rad: NDArray[np.float64]
    gripper: float

    def __post_init__(self) -> None:
        for field in ("translation_m", "rotation_rad"):
            value = np.array(getattr(self, field), dtype=np.float64)
            if value.shape != (3,):
                raise ActionError(f"{field} has shape {value.shape}; three numbers are needed")
            if not np.isfinite(value).all():
                raise ActionError(f"{field} is {value.tolist()}; every number must be finite")
            value.setflags(write=False)
            object.__setattr__(self, field, value)
        gripper = float(self.gripper)
        if not 0.0 <= gripper <= 1.0:  # also False for NaN
            raise ActionError(f"gripper is {gripper}; it must lie in 0 (closed) to 1 (open)")
        object.__setattr__(self, "gripper", gripper)

    @classmethod
    def from_array(cls, action: ArrayLike) -> EndEffectorDelta:
        """Build a delta from seven numbers in the order of `ACTION_NAMES`."""
        values = np.asarray(action, dtype=np.float64)
        if values.shape != (7,):
            raise ActionError(
                f"an action has shape {values.shape}; allowed is (7,): {ACTION_NAMES}"
            )
        return cls(values[:3], values[3:6], float(values[6]))

    def to_array(self) -> NDArray[np.float64]:
        """Return the seven numbers, (7,), in the order of `ACTION_NAMES`."""
        return np.concatenate([self.translation_m, self.rotation_rad, [self.gripper]])
