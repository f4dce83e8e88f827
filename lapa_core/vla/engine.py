# SPDX-License-Identifier: Apache-2.0
"""The model half of a policy: one preprocessed frame and an instruction to bins, on one thread, greedily."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import DataError
from lapa_core.train.augment import to_float
from lapa_core.vla.checkpoint import POLICY, LoadedVla, load_vla

SHORTENINGS = 21
"""Lengths that are tried for an action beyond the arm's cap, from the whole to none."""


class VlaEngine:
    """Greedy decoding by the action head, or by the code table where the checkpoint has one. Not thread-safe."""

    def __init__(self, loaded: LoadedVla, device: str = "cpu"):
        """Wrap a loaded policy and run it once, so that the first frame is as fast as the others."""
        self._model = loaded.model.to(device)
        self._table_QA = None if loaded.table_QA is None else loaded.table_QA.to(device)
        self._bins = ActionBins.from_dict(loaded.config["bins"])
        self._caps = (
            (slice(0, 3), loaded.config["max_translation_m"]),
            (slice(3, 6), loaded.config["max_rotation_rad"]),
        )
        self._image_px = loaded.trunk.image_px
        self._device = device
        self._words = lru_cache(maxsize=64)(
            lambda text: torch.from_numpy(loaded.vocabulary.encode(text, loaded.trunk.max_words))[
                None
            ].to(device)
        )
        self.step(np.zeros((self._image_px, self._image_px, 3), np.uint8), "")

    @torch.inference_mode()
    def step(
        self, frame_SS3: NDArray[np.uint8], instruction: str
    ) -> tuple[NDArray[np.int64], tuple[int, ...] | None]:
        """Return ((7,) bins, latent codes or None) for one frame of the model's own size.

        Raises:
            DataError: the frame has another size or type.
        """
        side = self._image_px
        if frame_SS3.shape != (side, side, 3) or frame_SS3.dtype != np.uint8:
            raise DataError(
                f"the frame is {frame_SS3.dtype} {frame_SS3.shape}; this policy takes uint8 ({side}, {side}, 3)"
            )
        image = to_float(torch.from_numpy(frame_SS3)[None].to(self._device))
        features_BF = self._model.trunk(image, self._words(instruction))
        latent = None
        if self._model.latent_head is not None:
            latent = tuple(self._model.latent_head(features_BF)[0].argmax(dim=-1).tolist())
        if self._table_QA is not None:
            bins_7 = self._look_up(self._model.need_latent_head()(features_BF), self._table_QA)
        else:
            bins_7 = self._model.need_action_head()(features_BF)[0].argmax(dim=-1).cpu().numpy()
        return self._inside_caps(bins_7), latent

    def _look_up(self, logits_BKN: Tensor, table_QA: Tensor) -> NDArray[np.int64]:
        probability_Q = logits_BKN[0].softmax(dim=-1).flatten()
        return self._bins.encode((probability_Q @ table_QA[:-1] + table_QA[-1]).cpu().numpy())

    def _inside_caps(self, bins_7: NDArray[np.int64]) -> NDArray[np.int64]:
        """Shorten a translation or rotation that the arm would refuse, keeping its direction as the bins allow.

        The dimensions are predicted apart, so that each can be in range and their length not.
        """
        for part, cap in self._caps:
            action_7 = self._bins.decode(bins_7)
            for scale in np.linspace(1.0, 0.0, SHORTENINGS):
                if np.linalg.norm(self._bins.decode(bins_7)[part]) <= cap:
                    break
                shorter_7 = action_7.copy()
                shorter_7[part] *= scale
                bins_7 = self._bins.encode(shorter_7)
        return bins_7


def load_engine(directory: str | Path, device: str = "cpu") -> VlaEngine:
    """Rebuild the engine of a policy checkpoint.

    Raises:
        CheckpointError: missing, damaged, or not a policy.
    """
    return VlaEngine(load_vla(directory, POLICY, device), device)
