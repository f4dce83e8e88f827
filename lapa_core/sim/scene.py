# SPDX-License-Identifier: Apache-2.0
"""The MJCF of the table world: arm, board, four blocks, lamp, front and wrist cameras.

Built as text from `ArmModel` and `Appearance`; it imports no MuJoCo, so it also runs where no GL is installed.
Frame: `base_link` is the world, board surface at z = 0.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

import numpy as np
from numpy.typing import NDArray

from lapa_core.robot.models import ArmModel
from lapa_core.sim.appearance import BLOCK_RGB, Appearance, Vec3
from lapa_core.sim.arm_mjcf import add_arm
from lapa_core.sim.distractors import add_distractors
from lapa_core.sim.geometry import BLOCK_SIZE_M, BOARD_MAX_M, BOARD_MIN_M
from lapa_core.sim.mjcf import add

TIMESTEP_S = 0.004
"""Physics step [s]; the servos are stiff, so they are integrated implicitly."""
MAX_IMAGE_PX = 480
"""Largest square image [px]."""
BLOCK_NAMES: tuple[str, ...] = tuple(BLOCK_RGB)
CAMERA_NAMES = ("front", "wrist")
_BOARD_MARGIN_M = 0.022
_FRICTION = (0.6, 0.005, 0.0001)


def build_mjcf(arm: ArmModel, look: Appearance) -> str:
    """Return the MJCF text of the table world."""
    root = Element("mujoco", model=f"lapa_tabletop_{arm.name}")
    add(root, "compiler", angle="radian", autolimits="true")
    option = add(root, "option", timestep=TIMESTEP_S, integrator="implicitfast", iterations=20)
    add(option, "flag", sleep="enable")  # blocks at rest cost nothing: four times the speed
    _add_visual(root, look)
    worldbody = add(root, "worldbody")
    _add_lamp_and_camera(worldbody, look)
    _add_board(worldbody, look)
    _add_blocks(worldbody)
    add_distractors(worldbody, look)
    actuators = Element("actuator")
    add_arm(worldbody, actuators, arm, look)
    root.append(actuators)
    return tostring(root, encoding="unicode")


def look_at(position_m: Vec3, target_m: Vec3) -> NDArray[np.float64]:
    """Return MJCF `xyaxes`, (6,), of an upright camera at `position_m` that looks at `target_m`."""
    forward = np.subtract(target_m, position_m)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right)
    return np.concatenate([right, np.cross(right, forward)])


def _add_visual(root: Element, look: Appearance) -> None:
    visual = add(root, "visual")
    # No shadows and no multisampling by default: they cost ten times at 64 px on a software renderer.
    add(visual, "quality", shadowsize=0, offsamples=0)
    add(visual, "global", offwidth=MAX_IMAGE_PX, offheight=MAX_IMAGE_PX)
    add(visual, "map", shadowclip=0.5)  # half-width of the lamp's shadow map [m]: arm and board
    black = (0, 0, 0)
    add(visual, "headlight", ambient=(look.ambient,) * 3, diffuse=black, specular=black)


def _add_lamp_and_camera(worldbody: Element, look: Appearance) -> None:
    middle = (*(0.5 * (BOARD_MIN_M + BOARD_MAX_M)), 0.0)
    add(
        worldbody, "light", name="lamp", type="directional", pos=look.lamp_position_m,
        dir=np.subtract(middle, look.lamp_position_m), diffuse=(look.diffuse,) * 3, ambient=(0, 0, 0),
        specular=(0.12,) * 3, castshadow="true",
    )  # fmt: skip
    add(
        worldbody, "camera", name="front", pos=look.camera_position_m, fovy=look.camera_fovy_deg,
        xyaxes=look_at(look.camera_position_m, look.camera_target_m),
    )  # fmt: skip


def _add_board(worldbody: Element, look: Appearance) -> None:
    """Append the table (the one surface with contacts), the board and its frame, which are seen only."""
    add(
        worldbody, "geom", name="table", type="plane", size=(1.5, 1.5, 0.1), rgba=(*look.table_rgb, 1),
        friction=_FRICTION, contype=1, conaffinity=1,
    )  # fmt: skip
    middle = 0.5 * (BOARD_MIN_M + BOARD_MAX_M)
    half = 0.5 * (BOARD_MAX_M - BOARD_MIN_M) + _BOARD_MARGIN_M
    sheets = (("board_frame", look.border_rgb, 0.006, 0.0), ("board", look.board_rgb, 0.0, 0.0004))
    for name, rgb, wider_m, height_m in sheets:
        add(
            worldbody, "geom", name=name, type="box", size=(*(half + wider_m), 0.0002), rgba=(*rgb, 1),
            pos=(*middle, height_m), contype=0, conaffinity=0,
        )  # fmt: skip


def _add_blocks(worldbody: Element) -> None:
    half = BLOCK_SIZE_M / 2
    for name, rgb in BLOCK_RGB.items():
        block = add(worldbody, "body", name=f"{name}_block", pos=(0, 0, half))
        # Viscous damping stands for felt under the blocks: they stop when the tool stops.
        add(block, "joint", type="free", name=f"{name}_block", damping=0.4)
        add(
            block, "geom", name=f"{name}_block", type="box", size=(half,) * 3, mass=0.06, rgba=(*rgb, 1),
            friction=_FRICTION, contype=1, conaffinity=3,
        )  # fmt: skip
