# SPDX-License-Identifier: Apache-2.0
"""Joint positions off the wire: found by name, never by place, and only when the message makes sense. No ROS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import ActionError


def joint_values(
    what: str, names: Sequence[str], positions: Sequence[float], wanted: Sequence[str]
) -> NDArray[np.float64]:
    """Return the positions of the wanted joints, in their order [rad or m].

    Args:
        what: the message, for the error: "joint states".
        names: of its joints.
        positions: one per name.
        wanted: the joints to pick.

    Raises:
        ActionError: names and positions differ in number, a name stands twice, a wanted joint is missing or its
            position is not finite.
    """
    if len(names) != len(positions):
        raise ActionError(f"{what} have {len(names)} names and {len(positions)} positions")
    by_name = dict(zip(names, positions, strict=True))
    if len(by_name) != len(names):
        raise ActionError(f"{what} name a joint twice: {list(names)}")
    if missing := [name for name in wanted if name not in by_name]:
        raise ActionError(f"{what} lack {missing}; they have {list(names)}")
    values = np.array([by_name[name] for name in wanted], dtype=np.float64)
    if not np.isfinite(values).all():
        raise ActionError(f"{what} are not finite: {values.tolist()}")
    return values
