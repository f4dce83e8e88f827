# SPDX-License-Identifier: Apache-2.0
"""Deltas of data sets that turn by roll, pitch and yaw, as ours, which turn by a rotation vector.

The turn is about fixed axes x, y, z in this order, as BridgeData and the sets made from it have it. Nothing but
importers and the export of the release's rows knows Euler angles. Imports numpy and scipy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lapa_core.errors import DataError


def euler_to_rotation_vector(euler_rad: NDArray) -> NDArray[np.float64]:
    """Convert (T, 3) roll, pitch, yaw about fixed axes [rad] to rotation vectors [rad]."""
    return Rotation.from_euler("xyz", euler_rad).as_rotvec()


def deltas_from_euler(rows_T7: NDArray, source: str) -> NDArray[np.float64]:
    """Return finite rows of x, y, z [m], roll, pitch, yaw [rad], gripper with rotation vectors.

    Raises:
        DataError: the gripper is no absolute opening.
    """
    rows = np.array(rows_T7, dtype=np.float64)
    if not ((rows[:, 6] >= 0) & (rows[:, 6] <= 1)).all():
        raise DataError(
            f"{source}: the gripper action runs from {rows[:, 6].min():g} to {rows[:, 6].max():g}; an "
            "absolute opening from 0 (closed) to 1 (open) is needed"
        )
    rows[:, 3:6] = euler_to_rotation_vector(rows[:, 3:6])
    return rows
