# SPDX-License-Identifier: Apache-2.0
"""How far joints stay below their targets under the arm's weight, so that holds do not let it sink. No ROS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lapa_core.robot.models import ArmModel

Array = NDArray[np.float64]

CARRYING = ("shoulder", "elbow", "wrist_angle")
"""Joints that carry the arm's weight; the others turn about its direction, or carry little."""


class SagEstimate:
    """Learns from each rest of an arm that holds: the target minus the measured joints, once both stand still.

    A servo without an integral part, as these motors are by default, stays below its target by what carries the
    weight. To make the measured joints the target would lower the arm by that much, with each hold anew.

    REST_S: how long both must stand still [s]; STILL_RAD: what counts as that.
    MOST_RAD: more than this is not the arm's weight: something pushes [rad].
    """

    REST_S = 0.5
    STILL_RAD = 0.005
    MOST_RAD = 0.1

    def __init__(self, model: ArmModel) -> None:
        self._carries = np.array([name in CARRYING for name in model.joint_names])
        self.forget()

    def forget(self) -> None:
        """Know nothing: the arm was limp, blocked, or seen by nobody."""
        self._sag_rad: Array = np.zeros(6)
        self._rest: tuple[Array, Array] | None = None
        self._since_s = float("inf")

    def look(self, target_rad: Array, measured_rad: Array, now_s: float) -> None:
        """Take what was just sent to an arm that holds and what was measured last, both (6,) [rad]."""
        if not self._is_at_rest(target_rad, measured_rad) or now_s < self._since_s:
            self._rest, self._since_s = (target_rad.copy(), measured_rad.copy()), now_s
        if now_s - self._since_s < self.REST_S:
            return
        sag_rad = np.where(self._carries, target_rad - measured_rad, 0.0)
        if np.abs(sag_rad).max() > self.MOST_RAD:
            self.forget()
        else:
            self._sag_rad = sag_rad

    def look_away(self) -> None:
        """What comes is no rest of an arm that holds: a motion may press on something."""
        self._rest = None

    def held(self, measured_rad: Array, sent_rad: Array | None) -> Array:
        """Return the (6,) target that holds joints where they were measured [rad].

        It is never beyond what was sent last: where the arm sags less than it did, it is not lifted, and nothing that
        is held again and again moves.
        """
        if sent_rad is None:
            return measured_rad.copy()
        low, high = np.minimum(measured_rad, sent_rad), np.maximum(measured_rad, sent_rad)
        return np.clip(measured_rad + self._sag_rad, low, high)

    def _is_at_rest(self, *now_rad: Array) -> bool:
        return self._rest is not None and all(
            np.abs(now - then).max() <= self.STILL_RAD
            for now, then in zip(now_rad, self._rest, strict=True)
        )
