# SPDX-License-Identifier: Apache-2.0
"""Reconstruction target: features of frames in a frozen DINOv2.

Features ignore much of what pixels make a model spend its codes on. With LAQ otherwise the same, they gave 49.4 % of
actions read off the codes where pixel-like tokens gave 40.8 % (LARYBench, arXiv 2604.11689; facts/peers.md 1.2).

The tower is no submodule: it is in no state dict, optimizer or parameter count, and it is only loaded when a target
is asked for, so a trained model labels and probes without it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lapa_core.errors import ContractError, DataError
from lapa_core.laq.config import PatchLaqConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FEATURE_SIDE = 16
"""Features per side that are aimed at: 224 px / 14 px, the resolution that DINOv2 was mostly trained at."""


class FrozenFeatures:
    """Frames (B, 3, S, S) in [0, 1] -> features (B, C, F, F), F a multiple of the model's patches per side."""

    def __init__(self, config: PatchLaqConfig):
        self.name, self.revision = config.dinov2, config.dinov2_revision
        self.channels = config.dinov2_dim
        self.factor = max(1, FEATURE_SIDE // config.grid)
        """Features per side that each patch of the decoder predicts."""
        self.side = config.grid * self.factor
        self._tower: Any = None

    @torch.no_grad()
    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """Return the features after the tower's last norm, without its class token."""
        tower = self._load().to(x_BCHW.device)
        side_px = self.side * tower.config.patch_size
        x_BCHW = F.interpolate(x_BCHW, (side_px, side_px), mode="bicubic", antialias=True)
        mean, std = (x_BCHW.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        tokens_BLC = tower((x_BCHW - mean) / std).last_hidden_state[:, 1:]
        return tokens_BLC.transpose(1, 2).unflatten(2, (self.side, self.side))

    def _load(self) -> Any:
        """Load the tower once.

        Raises:
            DataError: it is neither a local folder nor on the hub (or the hub cannot be reached).
            ContractError: its width is not the configured one.
        """
        if self._tower is None:
            from transformers import Dinov2Model

            try:
                tower = Dinov2Model.from_pretrained(self.name, revision=self.revision)
            except (OSError, ValueError) as error:
                raise DataError(
                    f"dinov2 {self.name!r} (revision {self.revision!r}) cannot be loaded: {error}. Give a local "
                    "folder, or an id of the Hugging Face hub that this machine can reach"
                ) from error
            if (width := tower.config.hidden_size) != self.channels:
                raise ContractError(
                    f"dinov2 {self.name!r} has features of width {width}, but dinov2_dim is {self.channels}; "
                    f"set dinov2_dim={width}"
                )
            self._tower = tower.eval().requires_grad_(False)
        return self._tower
