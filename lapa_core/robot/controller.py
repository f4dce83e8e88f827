# SPDX-License-Identifier: Apache-2.0
"""The arm controller: deltas in, joint targets out. The Gymnasium environment and the arm node run this same class.

It owns the commanded target pose. It has no clock, no thread and no ROS: times are passed in, in seconds of whatever
clock the caller lives on (simulated time offline, the node's clock live).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lapa_core.actions.delta import EndEffectorDelta
from lapa_core.actions.pose import Pose, apply_delta
from lapa_core.errors import ActionError
from lapa_core.robot.clearance import TableClearance
from lapa_core.robot.contract import RobotContract
from lapa_core.robot.kinematics import IkSolution, forward_kinematics, solve_ik

Array = NDArray[np.float64]


def minimum_jerk(share: float) -> float:
    """Return how much of a way is done after `share` of its time: at rest at both ends (Flash and Hogan, 1985)."""
    s = min(max(share, 0.0), 1.0)
    return s**3 * (10.0 - 15.0 * s + 6.0 * s**2)


class Applied(NamedTuple):
    """What came of one delta."""

    target_44: Pose
    """New commanded pose of the end effector in `base_link`."""
    solution: IkSolution
    """Joints for that pose, with residuals."""
    clipped_m: float
    """How far the workspace box moved the target back [m]; 0 inside the box."""


class ArmController:
    """Applies each delta to the previous commanded target and interpolates the joints towards it.

    A delta that is refused changes nothing: the arm finishes the move it is in and stays there.

    Attributes:
        table: what keeps the rest of the arm above the table, in moves of the caller's own as well.
    """

    def __init__(self, contract: RobotContract, lead_s: float = 0.0):
        """Start at the contract's ready pose.

        Args:
            contract: the robot's.
            lead_s: how far ahead of a time its targets are, for an arm that takes as long to follow them [s].
        """
        self.contract = contract
        self.model = contract.arm
        self.table = TableClearance(contract)
        self._lead_s = lead_s
        self.reset(np.array(contract.ready_joints_rad), contract.ready_gripper)

    def reset(self, joints_rad: Array, gripper: float) -> None:
        """Anchor the commanded target at given joints, (6,) [rad]: at the start, after a hold, at a new source."""
        joints = np.asarray(joints_rad, dtype=np.float64)
        if joints.shape != (6,) or not np.isfinite(joints).all():
            raise ActionError(
                f"joints to anchor at are {joints.tolist()}; six finite numbers are needed"
            )
        self.target_44: Pose = forward_kinematics(self.model, joints)
        self.gripper = float(gripper)
        self._from_rad = joints.copy()
        self._to_rad = joints.copy()
        self._since_s = -np.inf

    def apply(self, delta: EndEffectorDelta, now_s: float) -> Applied:
        """Move the commanded target by one delta, at time `now_s`.

        Raises:
            ActionError: the delta exceeds a per-step cap, no joints reach its target, or a part of the arm would
                come too close to the table. Nothing has changed then.
        """
        self._check_caps(delta)
        wanted_44 = apply_delta(self.target_44, delta)
        target_44 = wanted_44.copy()
        target_44[:3, 3] = np.clip(
            wanted_44[:3, 3], self.contract.workspace_min_m, self.contract.workspace_max_m
        )
        # From outside the box, clipping alone would be one long jump: come back to it in steps of the cap.
        move_m = target_44[:3, 3] - self.target_44[:3, 3]
        if (length_m := float(np.linalg.norm(move_m))) > self.contract.max_translation_m + 1e-6:
            shorter_m = move_m * (self.contract.max_translation_m / length_m)
            target_44[:3, 3] = self.target_44[:3, 3] + shorter_m
        solution = solve_ik(
            self.model, target_44, self._to_rad, self.contract.joint_limit_margin_rad
        )
        if not solution.reached:
            raise ActionError(
                f"no joints near the present ones reach {np.round(target_44[:3, 3], 4).tolist()} m: "
                f"{solution.position_residual_m * 1e3:.1f} mm and {solution.rotation_residual_rad:.3f} rad are left"
            )
        step = np.abs(solution.joints_rad - self._to_rad)
        if step.max() > self.contract.max_joint_step_rad:
            joint = self.model.joint_names[int(step.argmax())]
            raise ActionError(
                f"{joint} would move {step.max():.3f} rad in one step; "
                f"allowed are {self.contract.max_joint_step_rad} rad"
            )
        from_rad = self.sample(now_s)
        self.table.check_way(from_rad, solution.joints_rad)
        self._from_rad = from_rad
        self._to_rad = solution.joints_rad
        self._since_s = now_s
        self.target_44 = target_44
        self.gripper = delta.gripper
        return Applied(
            target_44, solution, float(np.linalg.norm(wanted_44[:3, 3] - target_44[:3, 3]))
        )

    def sample(self, now_s: float) -> Array:
        """Return the (6,) joint targets [rad] at time `now_s`: minimum jerk over the contract's interpolation time."""
        share = (now_s + self._lead_s - self._since_s) / self.contract.interpolation_s
        return self._from_rad + (self._to_rad - self._from_rad) * minimum_jerk(share)

    def _check_caps(self, delta: EndEffectorDelta) -> None:
        tolerance = 1e-6  # a delta cut to exactly the cap survives rounding
        length = float(np.linalg.norm(delta.translation_m))
        if length > self.contract.max_translation_m + tolerance:
            raise ActionError(
                f"translation of {length:.4f} m; allowed are {self.contract.max_translation_m} m per step"
            )
        angle = float(np.linalg.norm(delta.rotation_rad))
        if angle > self.contract.max_rotation_rad + tolerance:
            raise ActionError(
                f"rotation of {angle:.4f} rad; allowed are {self.contract.max_rotation_rad} rad per step"
            )
