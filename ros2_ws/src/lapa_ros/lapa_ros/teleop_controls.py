# SPDX-License-Identifier: Apache-2.0
"""What an operator's hand says: six motions and named buttons, read from a `Joy` through a map of names. No ROS.

Every device ends up here: a gamepad's axes in the order of its driver, a keyboard and a SpaceMouse in the order below.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lapa_core.errors import ActionError, ContractError

MOTIONS = ("x", "y", "z", "rx", "ry", "rz")
"""Translations along, and rotations about, x (forward), y (left) and z (up)."""

BUTTONS = (
    "hold", "gripper", "slow", "stop", "clear", "ready", "record", "save", "discard", "redo", "undo",
)  # fmt: skip
"""What a button can mean. `hold` is the hold-to-run switch; the last five speak to the recording session."""

OWN_AXES = tuple(f"{name} +{index}" for index, name in enumerate(MOTIONS))
OWN_BUTTONS = tuple(f"{name} {index}" for index, name in enumerate(BUTTONS))
"""The map of a device that publishes `MOTIONS` and `BUTTONS` in their order: our keyboard."""

_AXIS = re.compile(r"(\w+) ([+-])(\d+)")
_BUTTON = re.compile(r"(\w+) (\d+)")


@dataclass(frozen=True, kw_only=True)
class Controls:
    """One reading of the device."""

    motion: tuple[float, ...]
    """Six deflections in the order of `MOTIONS` [1]: -1 to 1, 0 inside the dead zone."""
    pressed: frozenset[str]
    """Names of `BUTTONS` that are down."""
    stamp_s: float
    """When it was read [s]."""


class ControlMap:
    """Which axis of a `Joy` is which motion, and which button means what."""

    def __init__(self, axes: Sequence[str], buttons: Sequence[str], dead_zone: float):
        """Read the map.

        Args:
            axes: lines `<motion> <sign><index>`, for example `x -1`; a motion that is not named stays 0.
            buttons: lines `<button> <index>`; `hold` is needed.
            dead_zone: deflection up to which an axis counts as centred [1].

        Raises:
            ContractError: a line cannot be read, a name is unknown or given twice, or `hold` is missing.
        """
        self._axes = {
            name: (int(index), -1.0 if sign == "-" else 1.0)
            for name, (sign, index) in _parse(axes, _AXIS, MOTIONS, "axes").items()
        }
        parsed = _parse(buttons, _BUTTON, BUTTONS, "buttons")
        self._buttons = {name: int(index) for name, (index,) in parsed.items()}
        self._dead_zone = dead_zone
        if "hold" not in self._buttons:
            raise ContractError(
                "parameter buttons has no `hold`; without the switch nothing may move"
            )

    def read(self, axes: Sequence[float], buttons: Sequence[int], stamp_s: float) -> Controls:
        """Return what one `Joy` says.

        Raises:
            ActionError: it lacks an axis or a button of the map, or a deflection is not finite.
        """
        wanted = (
            max((index for index, _ in self._axes.values()), default=-1),
            max(self._buttons.values()),
        )
        if wanted[0] >= len(axes) or wanted[1] >= len(buttons):
            raise ActionError(
                f"the device has {len(axes)} axes and {len(buttons)} buttons; its map needs "
                f"{wanted[0] + 1} and {wanted[1] + 1}: another device, or another map in teleop.yaml"
            )
        motion = [0.0] * len(MOTIONS)
        for name, (index, sign) in self._axes.items():
            motion[MOTIONS.index(name)] = sign * self._deflection(name, float(axes[index]))
        pressed = frozenset(name for name, index in self._buttons.items() if buttons[index])
        return Controls(motion=tuple(motion), pressed=pressed, stamp_s=stamp_s)

    def _deflection(self, name: str, value: float) -> float:
        """Return a deflection without its dead zone, which begins at 0 again beyond it."""
        if not math.isfinite(value):
            raise ActionError(f"the deflection of {name} is {value}; it must be finite")
        beyond = max(0.0, min(abs(value), 1.0) - self._dead_zone) / (1.0 - self._dead_zone)
        return math.copysign(beyond, value)


def _parse(
    lines: Sequence[str], form: re.Pattern[str], names: Sequence[str], what: str
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        match = form.fullmatch(line.strip())
        if match is None or match.group(1) not in names:
            raise ContractError(
                f"parameter {what} has {line!r}; a line is one of {list(names)} and "
                f"{'a sign and an index, as `x -1`' if form is _AXIS else 'an index, as `hold 5`'}"
            )
        if match.group(1) in found:
            raise ContractError(f"parameter {what} names {match.group(1)!r} twice")
        found[match.group(1)] = match.groups()[1:]
    return found
