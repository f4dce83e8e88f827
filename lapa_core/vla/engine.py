# SPDX-License-Identifier: Apache-2.0
"""The model half of a policy: one preprocessed frame and an instruction to bins, on one thread.

At temperature 0 the likeliest bin is taken; above, bins are sampled, as the authors' release does (temperature 1,
facts/lapa.md 2.7). A policy without memory that always does the same at the same place stays where it is stuck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.actions.bins import ActionBins
from lapa_core.actions.caps import cut_to_caps
from lapa_core.errors import DataError
from lapa_core.policy import Decision
from lapa_core.train.augment import to_float
from lapa_core.vla.base import Inputs
from lapa_core.vla.checkpoint import POLICY, LoadedVla, load_vla
from lapa_core.vla.decode.choose import greedy, make_choose
from lapa_core.vla.decode.static import DecodeOptions, use_options
from lapa_core.vla.extra import blank_extra, extra_tensors

SHORTENINGS = 21
"""Lengths that are tried for an action beyond the arm's cap, from the whole to none."""


def near_weights(
    probability_BKN: Tensor, codes_BK: Tensor, table_QA: Tensor, near_m: float
) -> Tensor:
    """Return weights (B, K, N) of the codes around drawn ones, which sum to 1 over the codes of a token.

    A weight is the code's probability times a Gaussian of the distance between its translation and the drawn one's.

    Args:
        probability_BKN: of each token's codes.
        codes_BK: drawn.
        table_QA: code-to-action table, token after token; its last row is the mean action.
        near_m: standard deviation of the Gaussian [m].
    """
    move_KN3 = table_QA[:-1, :3].unflatten(0, probability_BKN.shape[1:])
    drawn_BK3 = move_KN3[torch.arange(len(move_KN3), device=codes_BK.device), codes_BK]
    squared_BKN = (move_KN3 - drawn_BK3.unsqueeze(2)).square().sum(dim=-1)
    weight_BKN = probability_BKN * torch.exp(-0.5 * squared_BKN / near_m**2)
    return weight_BKN / weight_BKN.sum(dim=-1, keepdim=True)


class VlaEngine:
    """Decodes as the checkpoint says: with the action head, a code table or a continuous head. Not thread-safe."""

    def __init__(
        self,
        loaded: LoadedVla,
        *,
        temperature: float | None = None,
        top_k: int = 0,
        seed: int = 0,
        latents: bool = False,
    ):
        """Wrap a loaded policy and run it once, so that the first frame is as fast as the others.

        Args:
            loaded: of a policy.
            temperature: as `Policy.load`.
            top_k: as `Policy.load`.
            seed: as `Policy.load`.
            latents: name the codes even where no action is made of them.

        Raises:
            ContractError: a temperature that is negative or not finite, or a negative top_k.
        """
        own = float(loaded.config.get("temperature", 0.0))
        self._temperature = own if temperature is None else temperature
        self._model = loaded.model
        reads_its_own = loaded.model.earlier is not None
        self._latents = reads_its_own or (latents and loaded.model.latent is not None)
        device = loaded.model.device
        self._generator = torch.Generator(device)
        self._choose = make_choose(self._temperature, self._generator, top_k=top_k)
        self._table_QA = None if loaded.table_QA is None else loaded.table_QA.to(device)
        self._near_codes_m = float(loaded.config.get("near_codes_m", 0.0))
        self._bins = ActionBins.from_dict(loaded.config["bins"])
        self._caps = (
            (slice(0, 3), loaded.config["max_translation_m"]),
            (slice(3, 6), loaded.config["max_rotation_rad"]),
        )
        side = loaded.model.config.image_px
        blank = np.zeros((side, side, 3), np.uint8)
        self.step_with(blank, "", blank_extra(loaded.model))
        self._generator.manual_seed(seed)

    def step(self, frame_SS3: NDArray[np.uint8], instruction: str) -> Decision:
        """Decide on one frame of the model's own size.

        Raises:
            DataError: the frame has another size or type.
        """
        return self.step_many(frame_SS3[None], [instruction])[0]

    def step_with(
        self, frame_SS3: NDArray[np.uint8], instruction: str, extra: Mapping[str, NDArray[Any]]
    ) -> Decision:
        """Decide on one frame, further cameras (S, S, 3) by name, and the `state` (D,).

        Raises:
            DataError: as `step`, or one that the model takes is missing or of another shape.
            ContractError: the model takes none of them.
        """
        rows = {name: value[None] for name, value in extra.items()}
        return self.step_many(frame_SS3[None], [instruction], rows)[0]

    @torch.inference_mode()
    def step_many(
        self,
        frames_BSS3: NDArray[np.uint8],
        instructions: Sequence[str],
        extra: Mapping[str, NDArray[Any]] | None = None,
    ) -> list[Decision]:
        """Decide on several frames of the model's own size in one pass, with what `step_with` takes.

        Raises:
            DataError: the frames have another size or type.
        """
        side = self._model.config.image_px
        if frames_BSS3.shape[1:] != (side, side, 3) or frames_BSS3.dtype != np.uint8:
            raise DataError(
                f"the frame is {frames_BSS3.dtype} {frames_BSS3.shape[1:]}; this policy takes uint8 "
                f"({side}, {side}, 3)"
            )
        image_BCHW = to_float(torch.from_numpy(frames_BSS3).to(self._model.device))
        others = extra_tensors(extra or {}, self._model.device)
        inputs = self._model.read(self._model.prepare(image_BCHW, instructions, others))
        codes_BK = self._codes(inputs)
        chosen = self._chosen(inputs, codes_BK).cpu().numpy()  # waits for the device, once
        latents: list[tuple[int, ...] | None] = [None] * len(chosen)
        if codes_BK is not None:
            latents = [tuple(row) for row in codes_BK.tolist()]
        if self._model.chunk_head is not None:
            return [self._continuous(*pair) for pair in zip(chosen, latents, strict=True)]
        bins_B7 = chosen if self._table_QA is None else self._bins.encode(chosen)
        return [self._discrete(*pair) for pair in zip(bins_B7, latents, strict=True)]

    def _chosen(self, inputs: Inputs, codes_BK: Tensor | None) -> Tensor:
        """Return what the actions are made of: a chunk (B, H, 7), the table's actions (B, 7), or bins (B, 7)."""
        if self._model.chunk_head is not None:
            return self._model.chunk_actions(inputs).double()
        if self._table_QA is not None:
            assert codes_BK is not None, "a table reads codes"
            return self._look_up(inputs, codes_BK, self._table_QA)
        return self._model.decode(inputs, "action", self._choose)

    def _codes(self, inputs: Inputs) -> Tensor | None:
        """Return the codes (B, K) of a table's actions, or those that somebody reads; none: nobody does."""
        if self._table_QA is not None:
            return self._model.decode(inputs, "latent", self._choose)
        return self._model.decode(inputs, "latent", greedy) if self._latents else None

    def _discrete(self, bins_7: NDArray[np.int64], latent: tuple[int, ...] | None) -> Decision:
        """Return the centres of the bins, inside the caps."""
        bins_7 = self._inside_caps(bins_7)
        action_7 = self._bins.decode(bins_7)
        return Decision(action_7, bins_7, latent, action_7[None])

    def _continuous(
        self, chunk_H7: NDArray[np.float64], latent: tuple[int, ...] | None
    ) -> Decision:
        """Return the continuous head's actions, inside the caps."""
        (_, translation_m), (_, rotation_rad) = self._caps
        chunk_H7 = cut_to_caps(
            chunk_H7, max_translation_m=translation_m, max_rotation_rad=rotation_rad
        )
        return Decision(chunk_H7[0], self._bins.encode(chunk_H7[0]), latent, chunk_H7)

    def _look_up(self, inputs: Inputs, codes_BK: Tensor, table_QA: Tensor) -> Tensor:
        """Return the actions (B, 7) of the sampled codes, or of those near them; at temperature 0, of all codes."""
        if self._temperature == 0.0 or self._near_codes_m:
            weight_BKN = self._model.latent_logits(inputs, codes_BK).float().softmax(dim=-1)
        else:
            weight_BKN = F.one_hot(codes_BK, self._model.need_latent()[1]).float()
        if self._temperature and self._near_codes_m:
            weight_BKN = near_weights(weight_BKN, codes_BK, table_QA, self._near_codes_m)
        return weight_BKN.flatten(1) @ table_QA[:-1] + table_QA[-1]

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
    top_k: int = 0,
    seed: int = 0,
    latents: bool = False,
    compile: bool = False,
) -> VlaEngine:
    """Rebuild the engine of a policy checkpoint; see `Policy.load`.

    Raises:
        CheckpointError: missing, damaged, or not a policy.
        ContractError: a temperature that is negative or not finite, or a negative top_k.
    """
    loaded = load_vla(directory, POLICY, device)
    use_options(loaded.model, DecodeOptions(compile=compile))
    return VlaEngine(loaded, temperature=temperature, top_k=top_k, seed=seed, latents=latents)
