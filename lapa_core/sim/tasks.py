# SPDX-License-Identifier: Apache-2.0
"""Tasks of the table world: what is asked, and when it counts as done.

Families and thresholds follow Language Table (google-research/language-table 5b7bf0e), shrunk to this board:

| family | done when | Language Table |
|---|---|---|
| point_to_block | tool within 4.5 cm of the block's centre, its nearest | 5 cm |
| push_direction | block at least 5 cm further along the direction, at most 30 degrees off it | 10 cm from a place |
| push_to_block | block centres within 6.5 cm (two 4.2 cm cubes that touch: 4.2 to 5.9 cm) | 5 cm |

Distances are horizontal. A task is judged at the end of a control step, and holds only while it is so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lapa_core.sim.instructions import FAMILIES, meanings, parse_meaning, phrasings

if TYPE_CHECKING:
    from lapa_core.sim.world import TabletopWorld

POINT_SUCCESS_M = 0.045
PUSH_SUCCESS_M = 0.05
PUSH_SUCCESS_RAD = np.deg2rad(30.0)
TO_BLOCK_SUCCESS_M = 0.065
DIRECTION_XY: dict[str, tuple[float, float]] = {
    "left": (0.0, -1.0),
    "right": (0.0, 1.0),
    "toward": (-1.0, 0.0),
    "away": (1.0, 0.0),
}
"""Unit vectors in `base_link`; left and right as the front camera sees them."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One instruction and its meaning."""

    family: str
    """One of `FAMILIES`."""
    instruction: str
    """The sentence."""
    block: str
    """Colour of the block to point to or to push."""
    direction: str | None = None
    """Direction of push_direction, else None."""
    target: str | None = None
    """Colour of the block to push to, else None."""

    @property
    def direction_xy(self) -> NDArray[np.float64]:
        """(2,) unit vector of a push_direction task in `base_link`."""
        assert self.direction is not None, f"{self.family} has no direction"
        return np.array(DIRECTION_XY[self.direction])

    def success(self, world: TabletopWorld) -> bool:
        """Return whether the task is done in the world's present state."""
        blocks = world.block_positions_m
        position = blocks[self.block][:2]
        if self.family == "point_to_block":
            distances = {
                name: np.linalg.norm(xyz[:2] - world.tool_xy_m) for name, xyz in blocks.items()
            }
            nearest = min(distances, key=distances.__getitem__)
            return bool(nearest == self.block and distances[nearest] < POINT_SUCCESS_M)
        if self.family == "push_to_block":
            assert self.target is not None, self
            return bool(np.linalg.norm(blocks[self.target][:2] - position) < TO_BLOCK_SUCCESS_M)
        moved = position - world.start_positions_m[self.block][:2]
        along = float(moved @ self.direction_xy)
        aside = float(np.linalg.norm(moved - along * self.direction_xy))
        return bool(along > PUSH_SUCCESS_M and aside < along * np.tan(PUSH_SUCCESS_RAD))


def parse_instruction(instruction: str) -> Task:
    """Return the task that a sentence asks for.

    Raises:
        ContractError: the sentence is not known; the message has the closest ones.
    """
    meaning = parse_meaning(instruction)
    return Task(instruction=instruction, **meaning._asdict())


def sample_task(rng: np.random.Generator, families: tuple[str, ...] = FAMILIES) -> Task:
    """Draw a family, a meaning and a phrasing, each uniformly.

    Raises:
        ContractError: a family is unknown.
    """
    choices = meanings(families[rng.integers(len(families))])
    meaning = choices[rng.integers(len(choices))]
    sentences = phrasings(meaning)
    return Task(instruction=sentences[rng.integers(len(sentences))], **meaning._asdict())
