# SPDX-License-Identifier: Apache-2.0
"""`lapa sim gallery`: a contact sheet of expert episodes, one row each, with the instruction above it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lapa_core.errors import ContractError
from lapa_core.sim.appearance import DOMAINS
from lapa_core.sim.env import TabletopEnv
from lapa_core.sim.expert import expert_action
from lapa_core.sim.instructions import FAMILIES

_CAPTION_PX = 26
_GAP_PX = 6


@dataclass(frozen=True, kw_only=True)
class GalleryConfig:
    """What the contact sheet shows."""

    out: Path
    """PNG to write."""
    domain: str = "default"
    """Appearance, a key of `lapa_core.sim.appearance.DOMAINS`; `all` shows every one, `rows` of each."""
    rows: int = 3
    """Episodes; families take turns."""
    columns: int = 5
    """Frames per episode, evenly spaced from the first to the last."""
    frame_px: int = 224
    """Side of each frame [px]."""
    seed: int = 0
    """Seed of the episodes."""
    fine: bool = True
    """Shadows and smooth edges; False shows what the policy's camera delivers."""

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 2:
            raise ContractError(
                f"rows is {self.rows} and columns {self.columns}; at least 1 and 2 are needed"
            )


def render_gallery(config: GalleryConfig) -> NDArray[np.uint8]:
    """Return the contact sheet, (H, W, 3) uint8."""
    names = tuple(DOMAINS) if config.domain == "all" else (config.domain,)
    return np.concatenate([_domain_rows(name, config) for name in names])


def _domain_rows(domain: str, config: GalleryConfig) -> NDArray[np.uint8]:
    env = TabletopEnv(domain=domain)
    try:
        return np.concatenate([_episode_row(env, config, index) for index in range(config.rows)])
    finally:
        env.close()


def _episode_row(env: TabletopEnv, config: GalleryConfig, index: int) -> NDArray[np.uint8]:
    env.reset(seed=config.seed + index, options={"family": FAMILIES[index % len(FAMILIES)]})
    frames = [env.world.render("front", config.frame_px, fine=config.fine)]
    done = truncated = False
    while not (done or truncated):
        _, _, done, truncated, _ = env.step(expert_action(env.world, env.task))
        frames.append(env.world.render("front", config.frame_px, fine=config.fine))
    chosen = np.linspace(0, len(frames) - 1, config.columns).round().astype(int)
    side = config.frame_px
    width = config.columns * (side + _GAP_PX) - _GAP_PX
    sheet = Image.new("RGB", (width, side + _CAPTION_PX + _GAP_PX), "white")
    for column, frame in enumerate(chosen):
        sheet.paste(Image.fromarray(frames[frame]), (column * (side + _GAP_PX), _CAPTION_PX))
    caption = f"{env.task.instruction}  ({len(frames) - 1} steps)"
    caption = f"{env.domain}: {caption}" if config.domain == "all" else caption
    ImageDraw.Draw(sheet).text((2, 4), caption, fill="black", font=ImageFont.load_default(size=16))
    return np.asarray(sheet)


def main(config: GalleryConfig) -> None:
    """Write the contact sheet."""
    sheet = render_gallery(config)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(config.out)
    height, width = sheet.shape[:2]
    sys.stdout.write(f"wrote {config.out}: {width} x {height} px, domain {config.domain}\n")
