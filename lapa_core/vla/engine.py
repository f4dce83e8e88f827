# SPDX-License-Identifier: Apache-2.0
"""The model half of a policy: one preprocessed frame and an instruction to bins, on one thread.

At temperature 0 the likeliest bin is taken; above, bins are sampled, as the authors' release does (temperature 1,
facts/lapa.md 2.7). A policy without memory that always does the same at the same place stays where it is stuck.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import ContractError, DataError
from lapa_core.train.augment import to_float
from lapa_core.vla.checkpoint import POLICY, LoadedVla, load_vla

SHORTENINGS = 21
"""Lengths that are tried for an action beyond the arm's cap, from the whole to none."""


class VlaEngine:
    """Decodes with the action head, or with the code table where the checkpoint has one. Not thread-safe."""

    def __init__(
        self,
        loaded: LoadedVla,
        device: str = "cpu",
        *,
        temperature: float | None = None,
        seed: int = 0,
    ):
        """Wrap a loaded policy and run it once, so that the first frame is as fast as the others.

        Raises:
            ContractError: a temperature that is negative or not finite.
        """
        own = float(loaded.config.get("temperature", 0.0))
        self._temperature = own if temperature is None else temperature
        if not 0.0 <= self._temperature < np.inf:
            raise ContractError(
                f"temperature is {self._temperature}; 0 (the likeliest bin) or a positive number is needed"
            )
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
        self._generator = torch.Generator(device)
        self.step(np.zeros((self._image_px, self._image_px, 3), np.uint8), "")
        self._generator.manual_seed(seed)

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
            bins_7 = self._look_up(self._model.need_latent_head()(features_BF)[0], self._table_QA)
        else:
            bins_7 = self._choose(self._model.need_action_head()(features_BF)[0]).cpu().numpy()
        return self._inside_caps(bins_7), latent

    def _choose(self, logits_RN: Tensor) -> Tensor:
        """Return one index per row: the likeliest, or a sampled one."""
        if self._temperature == 0.0:
            return logits_RN.argmax(dim=-1)
        probability_RN = (logits_RN / self._temperature).softmax(dim=-1)
        return torch.multinomial(probability_RN, 1, generator=self._generator).squeeze(-1)

    def _look_up(self, logits_KN: Tensor, table_QA: Tensor) -> NDArray[np.int64]:
        """Return the bins of the sampled codes' action; at temperature 0, of the mean action over all codes."""
        if self._temperature == 0.0:
            weight_KN = logits_KN.softmax(dim=-1)
        else:
            weight_KN = F.one_hot(self._choose(logits_KN), logits_KN.shape[-1]).to(logits_KN.dtype)
        action_A = weight_KN.flatten() @ table_QA[:-1] + table_QA[-1]
        return self._bins.encode(action_A.cpu().numpy())

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


def load_engine(
    directory: str | Path,
    device: str = "cpu",
    *,
    temperature: float | None = None,
    seed: int = 0,
) -> VlaEngine:
    """Rebuild the engine of a policy checkpoint; see `Policy.load`.

    Raises:
        CheckpointError: missing, damaged, or not a policy.
        ContractError: a temperature that is negative or not finite.
    """
    loaded = load_vla(directory, POLICY, device)
    return VlaEngine(loaded, device, temperature=temperature, seed=seed)
