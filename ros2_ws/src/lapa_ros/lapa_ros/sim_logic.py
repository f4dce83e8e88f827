# SPDX-License-Identifier: Apache-2.0
"""The simulated arm and table as the `sim` node runs them: real time, command watchdog, tasks. No ROS imports.

All calls come from the thread that made the object: a GL context belongs to its thread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lapa_core.robot.contract import RobotContract
from lapa_core.sim.layout import sample_layout
from lapa_core.sim.tasks import Task, parse_instruction, sample_task
from lapa_core.sim.world import TabletopWorld
from lapa_ros.arm_backends import GRIPPER
from lapa_ros.joint_values import joint_values

Array = NDArray[np.float64]
Say = Callable[[str, str], None]


class SimLogic:
    """A world that follows joint commands, and holds where it is when they stop.

    Attributes:
        world: the simulated table.
        task: what the arm is asked to do; None before the first reset.
        episode: number of resets.
        seed: seed of the last reset.
    """

    SYNC_RAD = 0.2
    """After a reset, commands are followed from the first one that is this close to the arm in every joint [rad];
    more than the error at which the arm node anchors anew, so the two always meet."""

    def __init__(
        self,
        contract: RobotContract,
        domain: str,
        command_timeout_s: float,
        max_catch_up_s: float,
        say: Say,
    ):
        self.world = TabletopWorld(domain, arm=contract.arm)
        self.task: Task | None = None
        self.episode, self.seed, self.elapsed_s = 0, 0, 0.0
        self._contract, self._say = contract, say
        self._timeout_s, self._max_catch_up_s = command_timeout_s, max_catch_up_s
        self._names = [*contract.arm.joint_names, GRIPPER]
        self._simulated_to_s: float | None = None
        self._commanded_s: float | None = None
        self._synced = self.holding = False

    def reset(self, seed: int, instruction: str) -> Task:
        """Lay out a scene for a task and put the arm where it starts; return the task.

        Args:
            seed: seeds the task, where the instruction is empty, and the layout.
            instruction: what to ask for; "" draws it.

        Raises:
            ContractError: the instruction is unknown, or no layout allows it.
        """
        rng = np.random.default_rng(seed)
        task = parse_instruction(instruction) if instruction else sample_task(rng)
        self.world.reset(layout=sample_layout(rng, task))
        self.task, self.seed, self.elapsed_s = task, seed, 0.0
        self.episode += 1
        self._synced, self._commanded_s = False, None
        return task

    def command(self, names: list[str], positions: list[float], now_s: float) -> None:
        """Follow joint targets, found by name: six joints [rad] and the finger gap [m].

        Raises:
            ActionError: a joint is missing or a target is not finite; the old targets stay.
        """
        *joints, gap_m = joint_values("joint commands", names, positions, self._names)
        joints_rad = np.array(joints)
        if not self._synced:
            if np.abs(joints_rad - self.world.joints_rad).max() >= self.SYNC_RAD:
                return
            self._synced = True
        closed_m, open_m = self._contract.arm.finger_gap_m
        self.world.set_joint_targets(joints_rad, (gap_m - closed_m) / (open_m - closed_m))
        self._commanded_s = now_s
        if self.holding:
            self.holding = False
            self._say("info", "joint commands arrive again")

    def advance(self, now_s: float) -> None:
        """Simulate up to `now_s`, after holding the measured joints where commands have stopped."""
        if self._commanded_s is not None:  # in the future: the clock was set back
            self._commanded_s = min(self._commanded_s, now_s)
        if (
            self._commanded_s is not None
            and now_s - self._commanded_s > self._timeout_s
            and not self.holding
        ):
            self.holding = True
            self.world.set_joint_targets(self.world.joints_rad, self.world.gripper)
            self._say(
                "warn", f"no joint command for {self._timeout_s:g} s: holding the measured joints"
            )
        if self._simulated_to_s is None:
            self._simulated_to_s = now_s
            return
        behind_s = now_s - self._simulated_to_s
        if behind_s > self._max_catch_up_s + 1.0 / self._contract.command_rate_hz:
            self._say(
                "warn",
                f"the simulator stalled for {behind_s:.2f} s; the table stood still meanwhile",
            )
            behind_s = self._max_catch_up_s
        if behind_s > 0.0:
            self.world.step(behind_s)
            self.elapsed_s += behind_s
        self._simulated_to_s = now_s

    def joint_states(self) -> tuple[list[str], list[float], list[float]]:
        """Return names, positions ([rad]; the gripper's finger gap [m]) and velocities ([rad/s]; gripper 0)."""
        closed_m, open_m = self._contract.arm.finger_gap_m
        gap_m = closed_m + self.world.gripper * (open_m - closed_m)
        positions = [*self.world.joints_rad.tolist(), gap_m]
        return self._names, positions, [*self.world.joint_velocities_rad_s.tolist(), 0.0]

    def success(self) -> bool:
        """Return whether the task is done at this instant."""
        return self.task is not None and bool(self.task.success(self.world))


class Pacer:
    """Picks, out of a faster grid of ticks, those on which something slower is due; the mean rate is exact."""

    def __init__(self, rate_hz: float):
        self._period_s = 1.0 / rate_hz
        self._due_s: float | None = None

    def due(self, now_s: float) -> bool:
        """Return whether to act now."""
        ahead_s = 0.0 if self._due_s is None else self._due_s - now_s
        # First, after a stall, or because the clock was set back: a new grid.
        if self._due_s is None or not -10 * self._period_s <= ahead_s <= 2 * self._period_s:
            self._due_s = now_s
        if now_s < self._due_s - 1e-3:
            return False
        self._due_s += self._period_s
        return True
