# SPDX-License-Identifier: Apache-2.0
"""The sentences: several phrasings per family of tasks, and the exact inverse from sentence to meaning.

Left and right are those of the front camera's picture, which looks back at the robot: "left" is -y of `base_link`.
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

from lapa_core.errors import ContractError
from lapa_core.sim.appearance import BLOCK_RGB

FAMILIES = ("point_to_block", "push_direction", "push_to_block")
DIRECTIONS = ("left", "right", "toward", "away")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "point_to_block": (
        "point to the {block} block",
        "touch the {block} block",
        "go to the {block} cube",
        "reach for the {block} block",
        "move your arm to the {block} block",
    ),
    "push_direction": (
        "push the {block} block {direction}",
        "slide the {block} block {direction}",
        "move the {block} cube {direction}",
        "shove the {block} block {direction}",
    ),
    "push_to_block": (
        "push the {block} block to the {target} block",
        "slide the {block} block next to the {target} block",
        "move the {block} block to the {target} cube",
        "bring the {block} cube to the {target} block",
    ),
}
DIRECTION_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("left", "to the left"),
    "right": ("right", "to the right"),
    "toward": ("toward the robot", "closer to the robot"),
    "away": ("away from the robot", "further from the robot"),
}


class Meaning(NamedTuple):
    """What a sentence asks for."""

    family: str
    """One of `FAMILIES`."""
    block: str
    """Colour of the block to point to or to push."""
    direction: str | None
    """One of `DIRECTIONS` for push_direction, else None."""
    target: str | None
    """Colour of the block to push to for push_to_block, else None."""


def meanings(family: str) -> list[Meaning]:
    """Return every meaning of a family.

    Raises:
        ContractError: no such family.
    """
    if family == "point_to_block":
        return [Meaning(family, block, None, None) for block in BLOCK_RGB]
    if family == "push_direction":
        return [
            Meaning(family, block, direction, None)
            for block in BLOCK_RGB
            for direction in DIRECTIONS
        ]
    if family == "push_to_block":
        return [
            Meaning(family, block, None, target) for block, target in permutations(BLOCK_RGB, 2)
        ]
    raise ContractError(f"task family {family!r} is unknown; allowed are {FAMILIES}")


def phrasings(meaning: Meaning) -> list[str]:
    """Return every sentence for a meaning."""
    directions: tuple[str, ...] = (
        ("",) if meaning.direction is None else DIRECTION_PHRASES[meaning.direction]
    )
    return [
        template.format(block=meaning.block, target=meaning.target, direction=direction)
        for template in TEMPLATES[meaning.family]
        for direction in directions
    ]


def parse_meaning(instruction: str) -> Meaning:
    """Return what a sentence asks for; case, extra spaces and a final full stop do not matter.

    Raises:
        ContractError: not one of the sentences; the message has the closest ones.
    """
    sentence = " ".join(instruction.lower().rstrip(" .!").split())
    table = _sentences()
    if sentence not in table:
        close = difflib.get_close_matches(sentence, table, n=3, cutoff=0.0)
        raise ContractError(
            f"instruction {instruction!r} is none of the {len(table)} known; the closest are {close}"
        )
    return table[sentence]


@lru_cache(maxsize=1)
def _sentences() -> dict[str, Meaning]:
    return {
        sentence: meaning
        for family in FAMILIES
        for meaning in meanings(family)
        for sentence in phrasings(meaning)
    }
