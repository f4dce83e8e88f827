# SPDX-License-Identifier: Apache-2.0
"""Sizes of the table world that the physics, the tasks and the expert share. Frame: `base_link`, board at z = 0."""

from __future__ import annotations

import numpy as np

BLOCK_SIZE_M = 0.042
"""Edge of the cubic blocks [m]: about 8 px of a 64 px front image."""
BOARD_MIN_M = np.array([0.16, -0.155])
BOARD_MAX_M = np.array([0.43, 0.155])
"""Usable board, x and y [m]: its corners lie within 0.47 m of the base, where the arm works tool-down."""
TOOL_HEIGHT_M = 0.032
"""Height of `ee_gripper_link` above the board in the planar tasks [m]; the finger tips reach lower."""
FINGER_REACH_M = 0.020
"""How far the fingers reach beyond `ee_gripper_link` [m]."""
TOOL_HALF_WIDTH_M = 0.010
"""Half the width of the two closed fingers, a square column [m]."""
TOOL_DOWN_ROTATION = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""(3, 3) orientation of `ee_gripper_link` pointing at the board, as in BridgeData's wx250s code."""
TOOL_MIN_M = BOARD_MIN_M - 0.012
TOOL_MAX_M = BOARD_MAX_M + 0.012
"""Where the expert keeps the tool, x and y [m]."""
