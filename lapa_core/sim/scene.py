# SPDX-License-Identifier: Apache-2.0
"""The MJCF of the table world: arm, board, four blocks, lamp, front and wrist cameras.

Built as text from `ArmModel` and `Appearance`; it imports no MuJoCo, so it also runs where no GL is installed.
Frame: `base_link` is the world, board surface at z = 0.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from lapa_core.robot.models import ArmModel
from lapa_core.sim.appearance import BLOCK_RGB, Appearance, Vec3
from lapa_core.sim.arm_mjcf import add_arm, numbers
from lapa_core.sim.geometry import BLOCK_SIZE_M, BOARD_MAX_M, BOARD_MIN_M

TIMESTEP_S = 0.004
"""Physics step [s]: 50 per control step at 5 Hz; the servos are integrated implicitly."""
MAX_IMAGE_PX = 480
"""Largest square image [px]."""
BLOCK_NAMES: tuple[str, ...] = tuple(BLOCK_RGB)
CAMERA_NAMES = ("front", "wrist")
_BOARD_MARGIN_M = 0.022


def build_mjcf(arm: ArmModel, look: Appearance) -> str:
    """Return the MJCF text of the table world."""
    root = Element("mujoco", model=f"lapa_tabletop_{arm.name}")
    SubElement(root, "compiler", angle="radian", autolimits="true")
    option = SubElement(
        root, "option", timestep=numbers(TIMESTEP_S), integrator="implicitfast", cone="pyramidal", iterations="20"
    )
    SubElement(option, "flag", sleep="enable")  # blocks at rest cost nothing: four times the speed
    visual = SubElement(root, "visual")
    # No shadows and no multisampling by default: they cost ten times at 64 px on a software renderer.
    SubElement(visual, "quality", shadowsize="0", offsamples="0")
    SubElement(visual, "global", offwidth=str(MAX_IMAGE_PX), offheight=str(MAX_IMAGE_PX))
    SubElement(visual, "map", shadowclip="0.5")  # half-width of the lamp's shadow map [m]: the arm and the board
    ambient, diffuse = (numbers(*[value] * 3) for value in (look.ambient, look.diffuse))
    SubElement(visual, "headlight", ambient=ambient, diffuse="0 0 0", specular="0 0 0")
    worldbody = SubElement(root, "worldbody")
    _add_lamp_and_camera(worldbody, look, diffuse)
    _add_board(worldbody, look)
    for name, rgb in BLOCK_RGB.items():
        block = SubElement(worldbody, "body", name=f"{name}_block", pos=numbers(0, 0, BLOCK_SIZE_M / 2))
        # Viscous damping stands for felt under the blocks: they stop when the tool stops, so a push is quasi-static.
        SubElement(block, "joint", type="free", name=f"{name}_block", damping="0.4")
        SubElement(
            block, "geom", name=f"{name}_block", type="box", size=numbers(*[BLOCK_SIZE_M / 2] * 3), mass="0.06",
            rgba=numbers(*rgb, 1.0), friction="0.6 0.005 0.0001", contype="1", conaffinity="3",
        )  # fmt: skip
    actuators = Element("actuator")
    add_arm(worldbody, actuators, arm, look)
    root.append(actuators)
    return tostring(root, encoding="unicode")


def look_at(position_m: Vec3, target_m: Vec3) -> str:
    """Return MJCF `xyaxes` (image right, image up) of a camera at `position_m` that looks at `target_m`, upright."""
    forward = np.subtract(target_m, position_m)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right)
    return numbers(*right, *np.cross(right, forward))


def _add_lamp_and_camera(worldbody: Element, look: Appearance, diffuse: str) -> None:
    centre = (*(0.5 * (BOARD_MIN_M + BOARD_MAX_M)), 0.0)
    direction = np.subtract(centre, look.lamp_position_m)
    SubElement(
        worldbody, "light", name="lamp", type="directional", pos=numbers(*look.lamp_position_m), dir=numbers(*direction),
        diffuse=diffuse, ambient="0 0 0", specular="0.12 0.12 0.12", castshadow="true",
    )  # fmt: skip
    SubElement(
        worldbody, "camera", name="front", pos=numbers(*look.camera_position_m),
        xyaxes=look_at(look.camera_position_m, look.camera_target_m), fovy=numbers(look.camera_fovy_deg),
    )  # fmt: skip


def _add_board(worldbody: Element, look: Appearance) -> None:
    """Append the table (the one surface with contacts), the board and its frame, which are seen only."""
    SubElement(
        worldbody, "geom", name="table", type="plane", size="1.5 1.5 0.1", rgba=numbers(*look.table_rgb, 1.0),
        friction="0.6 0.005 0.0001", contype="1", conaffinity="1",
    )  # fmt: skip
    centre = 0.5 * (BOARD_MIN_M + BOARD_MAX_M)
    half = 0.5 * (BOARD_MAX_M - BOARD_MIN_M) + _BOARD_MARGIN_M
    for name, rgb, extra_m, height_m in (
        ("board_frame", look.border_rgb, 0.006, 0.0002),
        ("board", look.board_rgb, 0.0, 0.0006),
    ):
        SubElement(
            worldbody, "geom", name=name, type="box", size=numbers(*(half + extra_m), 0.0002),
            pos=numbers(*centre, height_m - 0.0002), rgba=numbers(*rgb, 1.0), contype="0", conaffinity="0",
        )  # fmt: skip
