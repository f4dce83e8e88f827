# SPDX-License-Identifier: Apache-2.0
"""What plans are worth: their squared error beside that of repeating the first frame, and a picture of some.

Shapes: B windows, F future frames, S image side [px].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lapa_core.data.store import FrameStore
from lapa_core.unipi.model import VideoDiffusion
from lapa_core.unipi.windows import WindowBatch, Windows, load_windows

MEASURED_WINDOWS = 512
"""Most windows that the error is measured on."""
AT_ONCE = 64
"""Windows of one pass."""
SHOWN = 8
"""Most episodes in the picture."""
_FRAME_PX, _GAP_PX, _CAPTION_PX = 96, 4, 22


@dataclass(frozen=True, kw_only=True)
class PlanError:
    """Mean squared error of pixels in [0, 1], for each frame of a plan, over the windows that have it.

    Frames that none has, because no episode is as long as a plan, are left out at the end.
    """

    plan: list[float]
    """Of the plans."""
    copy: list[float]
    """Of repeating the first frame."""

    def row(self) -> dict[str, float]:
        """Return the figures under names, for the metrics."""
        named = {"plan": self.plan, "copy": self.copy}
        return {
            f"{name}_error/frame{ahead}": value
            for name, values in named.items()
            for ahead, value in enumerate(values, start=1)
        }


class _Planned(NamedTuple):
    """Some windows and the frames that were planned from their first."""

    batch: WindowBatch
    plan_BF3SS: Tensor


def measure(model: VideoDiffusion, store: FrameStore, windows: Windows, steps: int) -> PlanError:
    """Return the error of plans on windows spread over a data set, with the same noise in every call."""
    count = len(windows.first_W)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MEASURED_WINDOWS)).round().astype(int))
    plan_F, copy_F, known_F = (np.zeros(model.config.frames) for _ in range(3))
    for batch, plan_BF3SS in _plans(model, store, windows, chosen, steps):
        for total_F, frames in ((plan_F, plan_BF3SS), (copy_F, batch.first_B3SS[:, None])):
            error_BF = (frames - batch.later_BF3SS).square().mean(dim=(2, 3, 4))
            total_F += (error_BF * batch.known_BF).sum(dim=0).cpu().numpy()
        known_F += batch.known_BF.sum(dim=0).cpu().numpy()
    seen_F = known_F > 0
    plan, copy = (total_F[seen_F] / known_F[seen_F] for total_F in (plan_F, copy_F))
    return PlanError(plan=plan.tolist(), copy=copy.tolist())


def samples_sheet(
    model: VideoDiffusion, store: FrameStore, windows: Windows, steps: int
) -> Image.Image:
    """Draw plans from the start of some episodes: first frame, planned frames, and below them the true ones."""
    episode_W = store.episode_ids[windows.first_W]
    _, starts = np.unique(episode_W, return_index=True)
    chosen = starts[np.linspace(0, len(starts) - 1, min(len(starts), SHOWN)).round().astype(int)]
    rows = []
    for batch, plan_BF3SS in _plans(model, store, windows, chosen, steps):
        captions = [store.instructions[episode] for episode in episode_W[chosen]]
        drawn = zip(captions, batch.first_B3SS, plan_BF3SS, batch.later_BF3SS, strict=True)
        known = batch.known_BF.cpu().numpy()
        rows += [_row(*each, known[i]) for i, each in enumerate(drawn)]
    return Image.fromarray(np.concatenate(rows))


def _plans(
    model: VideoDiffusion,
    store: FrameStore,
    windows: Windows,
    chosen: NDArray[np.int64],
    steps: int,
) -> Iterator[_Planned]:
    generator = torch.Generator().manual_seed(0)
    for chosen_B in np.array_split(chosen, -(-len(chosen) // AT_ONCE)):
        batch = load_windows(store, windows, chosen_B, model.device)
        told = [store.instructions[e] for e in store.episode_ids[windows.first_W[chosen_B]]]
        noise = model.noise(len(chosen_B), generator)
        yield _Planned(batch, model.plan(batch.first_B3SS, model.encode(told), noise, steps))


def _row(
    caption: str,
    first_3SS: Tensor,
    plan_F3SS: Tensor,
    true_F3SS: Tensor,
    known_F: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Return one episode's part of the picture (H, W, 3); true frames beyond its end are left white."""
    cell, frames = _FRAME_PX + _GAP_PX, len(plan_F3SS)
    sheet = Image.new("RGB", ((frames + 1) * cell, _CAPTION_PX + 2 * cell), "white")
    ImageDraw.Draw(sheet).text((2, 2), caption, fill="black", font=ImageFont.load_default(size=14))
    lines = ((first_3SS, *plan_F3SS), (first_3SS, *true_F3SS))
    for line, images in enumerate(lines):
        for column, image in enumerate(images):
            if line and column and not known_F[column - 1]:
                continue
            place = (column * cell, _CAPTION_PX + line * cell)
            sheet.paste(_picture(image), place)
    return np.asarray(sheet)


def _picture(image_3SS: Tensor) -> Image.Image:
    pixels = (255.0 * image_3SS).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels).resize((_FRAME_PX, _FRAME_PX), Image.Resampling.NEAREST)
