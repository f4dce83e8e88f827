# SPDX-License-Identifier: Apache-2.0
"""How far joints under the arm's weight stay from their targets, so that a hold does not let it sink. No ROS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class SagEstimate:
    """Learns from every rest: the target minus the measured joints, once both have stood still for `REST_S`.

    A servo without an integral part, as these motors are by default, stays below its target by what carries the
    weight. To make the measured joints the target would lower the arm by that much, with each hold anew.

    REST_S: how long both must stand still [s]; STILL_RAD: what counts as that.
    MOST_RAD: more than this is not the arm's weight: something blocks it [rad].

    Attributes:
        offset_rad: (6,) to be added to measured joints that are to be held [rad]; 0 before the first rest.
    """

    REST_S = 0.5
    STILL_RAD = 0.005
    MOST_RAD = 0.1

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know nothing: the arm was limp, blocked, or watched by nobody."""
        self.offset_rad: Array = np.zeros(6)
        self._rest: tuple[Array, Array] | None = None
        self._since_s = float("inf")

    def look(self, target_rad: Array, measured_rad: Array, now_s: float) -> None:
        """Take what was just sent and what was measured last, both (6,) [rad]."""
        if not self._is_at_rest(target_rad, measured_rad) or now_s < self._since_s:
            self._rest, self._since_s = (target_rad.copy(), measured_rad.copy()), now_s
        off_rad = target_rad - measured_rad
        if now_s - self._since_s >= self.REST_S and np.abs(off_rad).max() <= self.MOST_RAD:
            self.offset_rad = off_rad

    def _is_at_rest(self, *now_rad: Array) -> bool:
        return self._rest is not None and all(
            np.abs(now - then).max() <= self.STILL_RAD
            for now, then in zip(now_rad, self._rest, strict=True)
        )
