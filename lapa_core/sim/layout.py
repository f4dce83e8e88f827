# SPDX-License-Identifier: Apache-2.0
"""Where the blocks and the tool start, and layouts in which a task can be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import ContractError
from lapa_core.sim.geometry import BOARD_MAX_M, BOARD_MIN_M
from lapa_core.sim.scene import BLOCK_NAMES
from lapa_core.sim.tasks import PUSH_SUCCESS_M, Task

BEHIND_M = 0.054
"""Distance behind a block at which a push starts, tool centre to block centre [m]."""
_BLOCK_SPACING_M = 0.085
_TOOL_CLEARANCE_M = 0.065
_CORRIDOR_M = 0.055
_BLOCK_MARGIN_M = 0.038
_TOOL_MARGIN_M = 0.012
_TO_BLOCK_DISTANCE_M = (0.110, 0.200)
_POINT_DISTANCE_M = 0.090
_MAX_YAW_RAD = 0.35  # a face turned further from the push slides off the tool
_ATTEMPTS = 20_000


class BlockPose(NamedTuple):
    """Where a block lies on the board, in `base_link`."""

    x_m: float
    y_m: float
    yaw_rad: float


@dataclass(frozen=True)
class Layout:
    """Start of an episode."""

    blocks: dict[str, BlockPose]
    """Pose of every block, by colour."""
    tool_xy_m: tuple[float, float]
    """Where the tool starts on the board, in `base_link` [m]."""


def sample_layout(
    rng: np.random.Generator, task: Task | None = None, tool_xy_m: tuple[float, float] | None = None
) -> Layout:
    """Draw a layout, by rejection, in which `task` is not yet done and can be done.

    Args:
        rng: source of randomness.
        task: what has to be possible; None asks only for blocks that do not touch.
        tool_xy_m: where the tool already is; None draws it too.

    Raises:
        ContractError: no such layout was found, because `tool_xy_m` leaves no room.
    """
    low, high = BOARD_MIN_M + _BLOCK_MARGIN_M, BOARD_MAX_M - _BLOCK_MARGIN_M
    for _ in range(_ATTEMPTS):
        blocks_xy = rng.uniform(low, high, size=(len(BLOCK_NAMES), 2))
        tool = rng.uniform(BOARD_MIN_M + _TOOL_MARGIN_M, BOARD_MAX_M - _TOOL_MARGIN_M)
        if tool_xy_m is not None:
            tool = np.asarray(tool_xy_m, dtype=np.float64)
        if not _apart(blocks_xy, tool):
            continue
        if task is None or _feasible(task, dict(zip(BLOCK_NAMES, blocks_xy, strict=True)), tool):
            yaws = rng.uniform(-_MAX_YAW_RAD, _MAX_YAW_RAD, size=len(BLOCK_NAMES))
            poses = [
                BlockPose(float(x), float(y), float(yaw))
                for (x, y), yaw in zip(blocks_xy, yaws, strict=True)
            ]
            return Layout(
                dict(zip(BLOCK_NAMES, poses, strict=True)), (float(tool[0]), float(tool[1]))
            )
    raise ContractError(
        f"no layout leaves room for {task.instruction if task else 'four blocks'!r} with the tool at {tool_xy_m}; "
        "bring the tool over the board, or name another block or direction"
    )


def _apart(blocks_xy: NDArray[np.float64], tool: NDArray[np.float64]) -> bool:
    gaps = np.linalg.norm(blocks_xy[:, None] - blocks_xy[None], axis=-1)[
        np.triu_indices(len(blocks_xy), 1)
    ]
    return bool(
        gaps.min() > _BLOCK_SPACING_M
        and np.linalg.norm(blocks_xy - tool, axis=1).min() > _TOOL_CLEARANCE_M
    )


def _feasible(task: Task, xy: dict[str, NDArray[np.float64]], tool: NDArray[np.float64]) -> bool:
    block = xy[task.block]
    if task.family == "point_to_block":
        return bool(np.linalg.norm(block - tool) > _POINT_DISTANCE_M)
    others = np.array(
        [position for name, position in xy.items() if name not in (task.block, task.target)]
    )
    if task.family == "push_to_block":
        assert task.target is not None, task
        path = xy[task.target] - block
        length = float(np.linalg.norm(path))
        if not _TO_BLOCK_DISTANCE_M[0] < length < _TO_BLOCK_DISTANCE_M[1]:
            return False
        direction = path / length
    else:
        direction = task.direction_xy
        length = PUSH_SUCCESS_M + 0.045
        if not _inside(block + direction * (PUSH_SUCCESS_M + 0.02), _BLOCK_MARGIN_M - 0.01):
            return False
    behind = block - direction * BEHIND_M
    if not _inside(behind, 0.0) or np.linalg.norm(others - behind, axis=1).min() < 0.052:
        return False
    ahead = (others - block) @ direction
    aside = np.abs((others - block) @ np.array([-direction[1], direction[0]]))
    return not bool(((ahead > 0) & (ahead < length) & (aside < _CORRIDOR_M)).any())


def _inside(xy: NDArray[np.float64], margin_m: float) -> bool:
    return bool((xy >= BOARD_MIN_M + margin_m).all() and (xy <= BOARD_MAX_M - margin_m).all())
