# SPDX-License-Identifier: Apache-2.0
"""How the simulated table looks: colours, light and cameras, and the named domains.

A domain changes what is seen: board, blocks, physics, tasks and instructions are shared, so that videos of one domain
can pretrain a policy for another (experiment (d) of the README). `hard` also has another arm. Imports numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapa_core.errors import ContractError

Rgb = tuple[float, float, float]
Vec3 = tuple[float, float, float]

BLOCK_RGB: dict[str, Rgb] = {
    "red": (0.80, 0.10, 0.09),
    "green": (0.10, 0.58, 0.20),
    "blue": (0.10, 0.24, 0.80),
    "yellow": (0.93, 0.74, 0.08),
}
"""Colour of each block; its key is the word in the instructions. The same in every domain."""


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """Everything that a camera sees and the physics does not."""

    link_rgb: Rgb = (0.13, 0.14, 0.16)
    """Arm links."""
    joint_rgb: Rgb = (0.30, 0.32, 0.36)
    """Motor housings."""
    tool_rgb: Rgb = (0.86, 0.16, 0.70)
    """Fingers: unlike any block, board or link, so that the tool tip is found at 64 px."""
    board_rgb: Rgb = (0.63, 0.61, 0.56)
    """The board; low enough that the lit board stays inside the camera's range."""
    border_rgb: Rgb = (0.30, 0.32, 0.36)
    """Frame around the usable area."""
    table_rgb: Rgb = (0.17, 0.19, 0.22)
    """Table under the board."""
    ambient: float = 0.42
    """Share of light without direction."""
    diffuse: float = 0.52
    """Share of light of the lamp."""
    lamp_position_m: Vec3 = (0.55, -0.45, 1.2)
    """Lamp in `base_link` [m]; it points at the middle of the board."""
    camera_position_m: Vec3 = (0.60, 0.0, 0.66)
    """Front camera in `base_link` [m]."""
    camera_target_m: Vec3 = (0.290, 0.0, 0.0)
    """Point in `base_link` that the front camera looks at [m]."""
    camera_fovy_deg: float = 30.0
    """Vertical opening angle of the front camera [deg]."""
    contract: str = "wx250s_sim"
    """Robot contract of the domain, which names its arm."""
    distractors: int = 0
    """How many objects move by themselves, of `lapa_core.sim.distractors.DISTRACTORS`."""


DOMAINS: dict[str, Appearance] = {
    "default": Appearance(),
    "shifted": Appearance(
        link_rgb=(0.80, 0.45, 0.16),
        joint_rgb=(0.88, 0.86, 0.82),
        tool_rgb=(0.12, 0.12, 0.13),
        board_rgb=(0.42, 0.50, 0.55),
        border_rgb=(0.78, 0.76, 0.70),
        table_rgb=(0.34, 0.27, 0.22),
        ambient=0.32,
        diffuse=0.62,
        lamp_position_m=(0.15, 0.75, 0.9),
        camera_position_m=(0.66, 0.10, 0.62),
        camera_target_m=(0.293, 0.002, 0.0),
        camera_fovy_deg=31.5,
    ),
    "hard": Appearance(
        link_rgb=(0.24, 0.36, 0.30),
        joint_rgb=(0.66, 0.66, 0.62),
        tool_rgb=(0.90, 0.88, 0.80),
        board_rgb=(0.50, 0.44, 0.36),
        border_rgb=(0.20, 0.18, 0.17),
        table_rgb=(0.30, 0.31, 0.34),
        ambient=0.36,
        diffuse=0.62,
        lamp_position_m=(0.05, -0.80, 0.80),
        camera_position_m=(0.50, 0.34, 0.60),
        camera_target_m=(0.305, 0.025, 0.0),
        camera_fovy_deg=34.0,
        contract="vx300s_sim",
        distractors=4,
    ),
}
"""`default` is the robot's own camera; `shifted` has another camera pose, light, board and arm colour; `hard` has a
camera at the side, another light, a larger arm and four objects that move by themselves."""


def get_appearance(domain: str) -> Appearance:
    """Return a named domain.

    Raises:
        ContractError: no such domain.
    """
    if domain not in DOMAINS:
        raise ContractError(f"domain {domain!r} is unknown; allowed are {sorted(DOMAINS)}")
    return DOMAINS[domain]
