# SPDX-License-Identifier: Apache-2.0
"""Objects that move by themselves on and around the board: motion in the video that the arm does not explain.

They are seen only: nothing touches them, so tasks, physics and the scripted expert stay as they are. Each follows a
smooth random path, a sum of sines, that is a function of the layout and of time alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from lapa_core.sim.appearance import Appearance, Rgb
from lapa_core.sim.mjcf import add

if TYPE_CHECKING:
    from lapa_core.sim.layout import Layout

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Distractor:
    """One object and the region that it moves in."""

    name: str
    """Name of its body."""
    shape: str
    """MJCF geom type."""
    size_m: tuple[float, ...]
    """MJCF geom size [m]."""
    rgb: Rgb
    """Colour, unlike any block."""
    centre_m: tuple[float, float, float]
    """Middle of its region in `base_link` [m]; the height stays."""
    reach_m: tuple[float, float]
    """How far the path goes from the middle at most, in x and y [m]."""
    turn_rad: float
    """How far it turns about the vertical at most [rad]."""
    lying: bool = False
    """Whether the shape's axis lies along y instead of up."""


DISTRACTORS = (
    Distractor(name="sheet", shape="box", size_m=(0.030, 0.021, 0.0005), rgb=(0.82, 0.80, 0.74),
               centre_m=(0.30, 0.05, 0.0012), reach_m=(0.10, 0.09), turn_rad=1.2),
    Distractor(name="lid", shape="cylinder", size_m=(0.022, 0.0007), rgb=(0.08, 0.48, 0.52),
               centre_m=(0.28, -0.06, 0.0014), reach_m=(0.10, 0.08), turn_rad=0.0),
    Distractor(name="ball", shape="sphere", size_m=(0.018,), rgb=(0.44, 0.20, 0.58),
               centre_m=(0.33, 0.0, 0.085), reach_m=(0.09, 0.14), turn_rad=0.0),
    Distractor(name="sleeve", shape="capsule", size_m=(0.020, 0.09), rgb=(0.50, 0.36, 0.28),
               centre_m=(0.36, -0.26, 0.045), reach_m=(0.07, 0.08), turn_rad=0.5, lying=True),
)  # fmt: skip
"""A sheet and a lid slide on the board under everything else, a ball hangs above it, a sleeve reaches in."""
_PERIOD_S = (2.2, 6.0)
"""Range of the sines' periods [s]: 0.1 m/s on average and seldom above 0.25, the speeds of the arm."""
_SINES = 2


def add_distractors(worldbody: Element, look: Appearance) -> None:
    """Append the bodies of a domain's distractors to `worldbody`."""
    for item in DISTRACTORS[: look.distractors]:
        body = add(worldbody, "body", name=item.name, pos=item.centre_m, mocap="true")
        along_y = (0.70710678, 0.70710678, 0.0, 0.0) if item.lying else (1.0, 0.0, 0.0, 0.0)
        add(
            body, "geom", name=item.name, type=item.shape, size=item.size_m, rgba=(*item.rgb, 1),
            quat=along_y, contype=0, conaffinity=0,
        )  # fmt: skip


class DistractorPaths:
    """Where the distractors of one episode are at any time."""

    def __init__(self, count: int, layout: Layout):
        """Draw the paths of the first `count` distractors; the same layout gives the same paths."""
        rng = np.random.default_rng(_entropy(layout))
        self._centre_N3 = np.array([item.centre_m for item in DISTRACTORS[:count]])
        reach_N3 = np.array([(*item.reach_m, item.turn_rad) for item in DISTRACTORS[:count]])
        share_N3S = rng.uniform(0.4, 1.0, size=(count, 3, _SINES))
        share_N3S /= share_N3S.sum(axis=-1, keepdims=True)
        self._amplitude_N3S = reach_N3[..., None] * share_N3S
        self._rate_N3S = 2 * np.pi / rng.uniform(*_PERIOD_S, size=(count, 3, _SINES))
        self._phase_N3S = rng.uniform(0.0, 2 * np.pi, size=(count, 3, _SINES))

    def at(self, time_s: float) -> tuple[Array, Array]:
        """Return positions (N, 3) in `base_link` [m] and orientations (N, 4), quaternions w x y z."""
        angle_N3S = self._rate_N3S * time_s + self._phase_N3S
        moved_N3 = (self._amplitude_N3S * np.sin(angle_N3S)).sum(axis=-1)
        position_N3 = self._centre_N3.copy()
        position_N3[:, :2] += moved_N3[:, :2]
        half_N = 0.5 * moved_N3[:, 2]
        zero_N = np.zeros_like(half_N)
        return position_N3, np.stack([np.cos(half_N), zero_N, zero_N, np.sin(half_N)], axis=-1)


def _entropy(layout: Layout) -> list[int]:
    """Return the layout's numbers as a seed."""
    poses = [(pose.x_m, pose.y_m, pose.yaw_rad) for pose in layout.blocks.values()]
    numbers = np.array([*np.ravel(poses), *layout.tool_xy_m])
    return [int(word) for word in numbers.view(np.uint32)]
