# SPDX-License-Identifier: Apache-2.0
"""How high the whole arm stays above the table: elbow, forearm, wrist and gripper; the box bounds one point only.

Of the postures whose end-effector point is in the workspace box, about a tenth have another part in the table
(docs/safety.md): a gripper that is rolled, or tilted up so that the wrist hangs below it. Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import ActionError
from lapa_core.robot.contract import RobotContract
from lapa_core.robot.kinematics import carried_points
from lapa_core.robot.models import ArmModel

Array = NDArray[np.float64]

FINGER_REACH_M = 0.020
"""How far the fingers of our URDF and simulator reach beyond `ee_gripper_link` [m]."""
BAR_OVERHANG_M = 0.015
"""How far the bar that carries the fingers reaches beyond them when they are open, on each side [m]."""
LINK_CLEARANCE_M = 0.030
"""Height that the axes of the links keep [m]: their radius, 2 cm, and a margin of 1 cm ..."""
BAR_CLEARANCE_M = 0.020
"""... the ends of the bar: half its thickness, 1 cm, and a margin of 1 cm ..."""
TIP_CLEARANCE_M = -0.005
"""... and the finger tips, which work on the table: 5 mm below it is a tilt of some 0.1 rad at the floor of the box."""
SAMPLE_RAD = 0.1
"""A way is looked at each time that a joint has turned so far [rad]: between two looks nothing sinks by over 1 mm."""
GRACE_M = 1e-4
"""Sinking that does not count [m]: what inverse kinematics leaves."""


@dataclass(frozen=True, kw_only=True)
class BodyPoint:
    """A point of the arm that is kept above the table."""

    name: str
    """For people."""
    joint: int
    """How many joints, from the base, move it."""
    position_m: tuple[float, float, float]
    """Where it is in `base_link` at zero joints [m]."""
    clearance_m: float
    """Least height above the table [m]."""


def body_points(model: ArmModel) -> tuple[BodyPoint, ...]:
    """Return the points of an arm, base to tip; the fingers as wide as they open: they may be opened at any time."""
    ends_m = {
        name: end_m
        for (name, _), end_m in zip(
            model.origins_m, np.cumsum([o for _, o in model.origins_m], axis=0), strict=True
        )
    }
    finger_m = model.finger_gap_m[1] / 2
    axis = (
        ("elbow", 2, "elbow"),
        ("forearm", 3, "forearm_roll"),
        ("wrist", 4, "wrist_angle"),
        ("back of the gripper", 5, "wrist_rotate"),
        ("gripper", 6, "ee_arm"),
    )
    points = [(name, joint, ends_m[link], LINK_CLEARANCE_M) for name, joint, link in axis]
    for side, word in ((1, "left"), (-1, "right")):
        bar_m = ends_m["ee_bar"] + (0.0, side * (finger_m + BAR_OVERHANG_M), 0.0)
        tip_m = ends_m["ee_gripper"] + (FINGER_REACH_M, side * finger_m, 0.0)
        points.append((f"{word} end of the gripper's bar", 6, bar_m, BAR_CLEARANCE_M))
        points.append((f"{word} finger tip", 6, tip_m, TIP_CLEARANCE_M))
    return tuple(
        BodyPoint(name=name, joint=joint, position_m=tuple(place.tolist()), clearance_m=height)
        for name, joint, place, height in points
    )


class TableClearance:
    """Refuses ways in joint space on which a point of the arm sinks below its clearance above the table.

    Attributes:
        table_m: height of the table in `base_link` [m]: that of the arm's foot, or where the finger tips are when the
            tool points straight down at the floor of the workspace box, whichever is lower. The box was set for the
            table (a higher one is not known here), and all of it stays within reach of a tool that points down.
    """

    def __init__(self, contract: RobotContract):
        """Take the arm and the workspace box of a contract."""
        self._model = contract.arm
        self.points = body_points(contract.arm)
        self.table_m = min(0.0, contract.workspace_min_m[2] - FINGER_REACH_M)
        self._joints = np.array([point.joint for point in self.points])
        self._positions_m = np.array([point.position_m for point in self.points])
        self._clearances_m = np.array([point.clearance_m for point in self.points])

    def spare_m(self, joints_rad: Array) -> Array:
        """Return how much higher than it must be each of `points` is, at (6,) joints [rad]; negative is too low [m]."""
        places = carried_points(self._model, joints_rad, self._joints, self._positions_m)
        return places[:, 2] - self.table_m - self._clearances_m

    def check_way(self, start_rad: Array, end_rad: Array) -> None:
        """Check the straight way in joint space from one posture, (6,) [rad], to another.

        What is too low at the start may rise, or stay as it is, but not sink further.

        Raises:
            ActionError: a point would come too low.
        """
        way_rad = end_rad - start_rad
        allowed_m = np.minimum(0.0, self.spare_m(start_rad) - GRACE_M)
        num_looks = max(1, int(np.ceil(np.abs(way_rad).max() / SAMPLE_RAD)))
        for look in range(1, num_looks + 1):
            spare_m = self.spare_m(start_rad + way_rad * (look / num_looks))
            if (spare_m < allowed_m).any():
                worst = int((spare_m - allowed_m).argmin())
                raise ActionError(self._complaint(self.points[worst], float(spare_m[worst])))

    def _complaint(self, point: BodyPoint, spare_m: float) -> str:
        lowest_m = self.table_m + point.clearance_m
        return (
            f"the {point.name} would come down to z = {(lowest_m + spare_m) * 1e3:.1f} mm; allowed are "
            f"{lowest_m * 1e3:.1f} mm or more (the table is at {self.table_m * 1e3:.1f} mm): raise the end effector, "
            "or point it down"
        )
