# SPDX-License-Identifier: Apache-2.0
"""What whoever commands an arm knows about it, and why a command would be in vain. No ROS; the clock is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lapa_core.robot.contract import RobotContract
from lapa_ros.arm_logic import Mode

ARM_SILENCE_S = 0.5
"""Arm states older than this count as a dead arm node [s]."""
ARM_PARKS_S = 0.1
"""An arm node that is interrupted together with another one has said by then that it parks [s]."""


@dataclass(frozen=True, kw_only=True)
class ArmReport:
    """What the arm node said last."""

    received_s: float
    """When [s]."""
    obeys: bool
    """Whether it would apply a good command now."""
    reason: str
    """Its own sentence."""
    contract_hash: str
    """The contract it enforces."""


def read_report(state: Any, now_s: float) -> ArmReport:
    """Return what a `lapa_msgs/ArmState` that arrived at `now_s` says."""
    return ArmReport(
        received_s=now_s, obeys=state.mode in (Mode.HOLDING, Mode.TRACKING), reason=state.reason,
        contract_hash=state.contract_hash,
    )  # fmt: skip


def arm_blocker(arm: ArmReport | None, contract: RobotContract, now_s: float, who: str) -> str:
    """Return why the arm would not follow `who` now, or ""."""
    if arm is None:
        return "no arm state has ever arrived"
    # A report from the future is one from before the clock was set back.
    if abs(now_s - arm.received_s) > ARM_SILENCE_S:
        return "the arm node is silent"
    if arm.contract_hash != contract.hash:
        return f"the arm enforces contract {arm.contract_hash[:12]}, {who} {contract.hash[:12]}"
    return "" if arm.obeys else f"the arm does not obey: {arm.reason}"
