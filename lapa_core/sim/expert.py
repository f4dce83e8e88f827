# SPDX-License-Identifier: Apache-2.0
"""The scripted expert: a function of the present state only, so that a policy can learn it from single frames.

To push, it goes around the block to a point behind it, then drives the block along the direction while it steers
back to the line through the block's centre. Recoveries come for free: off the line, it goes around again.

Noise follows DART (Laskey et al., 2017): `ExecutionNoise` perturbs what is *executed*, so that the data holds states
off the expert's path; the recorded label stays the clean action for the state that was reached. Episodes recorded
through ROS have no noise: there the executed delta is the label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import ContractError
from lapa_core.sim.geometry import TOOL_MAX_M, TOOL_MIN_M
from lapa_core.sim.layout import BEHIND_M
from lapa_core.sim.planner import point_along, shortest_path
from lapa_core.sim.tasks import Task
from lapa_core.sim.world import TabletopWorld

Array = NDArray[np.float64]

MAX_STEP_M = 0.04
"""Longest step of the expert [m], below the contract's cap so that noise fits."""
_PUSH_STEP_M = 0.03
"""Advance per step while pushing [m]."""
_POINT_STANDOFF_M = 0.041
"""Distance from the block's centre at which pointing stops [m]: inside the success radius, not touching."""
_CLEARANCE_M = 0.044
"""Distance from a block's centre that the tool keeps while it travels [m]: half diagonals of tool and block."""
_CONTACT_M = 0.034
"""Distance between the centres of tool and block in contact [m]."""
_TOLERANCE_M = 0.011
"""Distance from the push line up to which pushing goes on in contact [m] ..."""
_FUNNEL_SLOPE = 0.35
"""... and how it widens per metre behind contact."""
_STEERING = 1.2
"""Share of the distance from the push line that one step takes back."""
_AT_GOAL_M = 0.005
"""Distance at which a point counts as reached [m]."""


def expert_action(world: TabletopWorld, task: Task) -> Array:
    """Return the (7,) end-effector delta that furthers `task`: x and y [m], all else zero, gripper closed."""
    positions = {name: xyz[:2] for name, xyz in world.block_positions_m.items()}
    tool = world.tool_xy_m
    action = np.zeros(7)
    if task.family == "point_to_block":
        block = positions[task.block]
        away = (tool - block) / max(1e-9, float(np.linalg.norm(tool - block)))
        action[:2] = _travel(tool, block + away * _POINT_STANDOFF_M, positions)
    else:
        action[:2] = _push(tool, positions, task)
    return action


def _push(tool: Array, positions: dict[str, Array], task: Task) -> Array:
    block = positions[task.block]
    if task.target is not None:
        direction = positions[task.target] - block
        direction = direction / np.linalg.norm(direction)
    else:
        direction = task.direction_xy
    offset = block - tool
    ahead = float(offset @ direction)  # of the tool: positive when it is behind the block
    aside = offset - ahead * direction
    tolerance = _TOLERANCE_M + _FUNNEL_SLOPE * max(0.0, ahead - _CONTACT_M)
    behind = np.clip(block - direction * BEHIND_M, TOOL_MIN_M, TOOL_MAX_M)
    aligned = 0.4 * _CONTACT_M < ahead < 2.5 * BEHIND_M and float(np.linalg.norm(aside)) < tolerance
    as_good_as_it_gets = np.linalg.norm(behind - tool) < _AT_GOAL_M  # clipped at the board's edge
    if aligned or as_good_as_it_gets:
        step = direction * _PUSH_STEP_M + aside * _STEERING
        return step * min(1.0, MAX_STEP_M / float(np.linalg.norm(step)))
    return _travel(tool, behind, positions)


def _travel(tool: Array, goal: Array, positions: dict[str, Array]) -> Array:
    """Return a step along the shortest path to `goal` around the blocks, and out of those that are too close."""
    obstacles = np.stack(list(positions.values()))
    path = shortest_path(tool, goal, obstacles, _CLEARANCE_M, TOOL_MIN_M, TOOL_MAX_M)
    step = point_along(path, MAX_STEP_M) - tool
    outward = tool - obstacles
    distances = np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    step = step + (outward / distances * np.maximum(0.0, _CLEARANCE_M - distances)).sum(axis=0)
    return step * min(1.0, MAX_STEP_M / max(1e-9, float(np.linalg.norm(step))))


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """How far execution strays from the expert. Zero everywhere means not at all."""

    max_sigma_m: float = 0.010
    """Each episode draws its standard deviation per axis and step from 0 to this [m]."""
    burst_probability: float = 0.06
    """Chance per step that a burst starts: a few steps in one random direction."""
    burst_step_m: float = 0.025
    """Length of a burst's steps [m]."""
    burst_steps: int = 2
    """Steps of a burst."""

    def __post_init__(self) -> None:
        values = (self.max_sigma_m, self.burst_probability, self.burst_step_m, self.burst_steps)
        if not all(0 <= value < np.inf for value in values) or self.burst_probability > 1:
            raise ContractError(
                f"{self}: all must be 0 or more and finite, burst_probability at most 1; zero everywhere is no noise"
            )


class ExecutionNoise:
    """Perturbs executed actions for one episode; the labels stay clean."""

    def __init__(self, config: NoiseConfig, rng: np.random.Generator):
        """Draw the episode's noise level."""
        self._config = config
        self._rng = rng
        self._sigma_m = rng.uniform(0.0, config.max_sigma_m)
        self._burst: Array = np.zeros(2)
        self._burst_left = 0

    def perturb(self, action: Array, max_translation_m: float) -> Array:
        """Return the (7,) action to execute instead of `action`, its translation at most `max_translation_m`."""
        executed = action.copy()
        if self._burst_left == 0 and self._rng.random() < self._config.burst_probability:
            angle = self._rng.uniform(0.0, 2 * np.pi)
            self._burst = self._config.burst_step_m * np.array([np.cos(angle), np.sin(angle)])
            self._burst_left = self._config.burst_steps
        if self._burst_left > 0:
            self._burst_left -= 1
            executed[:2] = self._burst
        executed[:2] += self._rng.normal(0.0, self._sigma_m, size=2)
        length = float(np.linalg.norm(executed[:3]))
        executed[:3] *= min(1.0, max_translation_m / length) if length > 0 else 1.0
        return executed
