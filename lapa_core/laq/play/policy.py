# SPDX-License-Identifier: Apache-2.0
"""A pretrained policy that chooses codes: the latent head of `lapa vla pretrain`, greedily."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lapa_core.errors import CheckpointError
from lapa_core.image import preprocess
from lapa_core.laq.base import LatentActionModel
from lapa_core.train.augment import to_float
from lapa_core.vla.checkpoint import PRETRAINED, load_vla
from lapa_core.vla.decode.choose import greedy
from lapa_core.vla.extra import extra_tensors
from lapa_core.vla.history import HISTORY, CodeMemory


class CodePolicy:
    """Frame and instruction in, code tuple out.

    The policy looks at frames of its own size; the world model's are enlarged where they are smaller, and are less
    sharp than what it was trained on, so it can err where it would not on a camera.
    """

    def __init__(
        self, directory: Path, model: LatentActionModel, made_by: str, device: str = "cpu"
    ):
        """Load the policy.

        Args:
            directory: checkpoint of kind `pretrained`.
            model: latent action model whose codes it must speak.
            made_by: SHA-256 of that model's weights.
            device: torch device.

        Raises:
            CheckpointError: no pretrained policy, or one of another latent action model.
        """
        loaded = load_vla(directory, PRETRAINED, device)
        tokens, codes = loaded.model.need_latent()
        if (tokens, codes) != (model.tokens, model.codes) or loaded.config["laq"] != made_by:
            raise CheckpointError(
                f"{directory} was pretrained on the codes of another latent action model "
                f"({loaded.config['laq'][:12]}, {tokens} tokens of {codes} codes); "
                f"given is {made_by[:12]}: take the one that labelled its data"
            )
        self._model = loaded.model
        self._device = device

    @torch.inference_mode()
    def choose(
        self,
        frame_SSC: NDArray[np.uint8],
        instruction: str,
        played: Sequence[tuple[int, ...]] = (),
    ) -> tuple[int, ...]:
        """Return the likeliest codes for a frame under an instruction, after those that were played, a gap each."""
        side = self._model.config.image_px
        frame = torch.from_numpy(preprocess(frame_SSC, side))[None].to(self._device)
        others = {}
        if self._model.earlier is not None:
            memory = CodeMemory(*self._model.earlier.shape, periods=1)
            for codes in played:
                memory.remember(codes)
            others[HISTORY] = memory.codes()[None]
        inputs = self._model.prepare(
            to_float(frame), [instruction], extra_tensors(others, self._model.device)
        )
        return tuple(self._model.decode(inputs, "latent", greedy)[0].tolist())
