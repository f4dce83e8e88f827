# SPDX-License-Identifier: Apache-2.0
"""The small policy model: a FiLM trunk and linear heads that name all tokens at once, none from the one before.

Shapes: B frames, F features, K latent tokens, N codes, A action dimensions (7), Q bins of the largest dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import ContractError
from lapa_core.train.augment import ALONE
from lapa_core.train.sampling import Part
from lapa_core.vla.base import Choose, Head, Inputs, VlaModel
from lapa_core.vla.config import TrunkConfig
from lapa_core.vla.history import HISTORY
from lapa_core.vla.trunk import FilmTrunk
from lapa_core.vla.words import PAD, UNKNOWN, Vocabulary


class LatentHead(nn.Module):
    """One linear layer per latent token, over its codes."""

    def __init__(self, features: int, tokens: int, codes: int):
        super().__init__()
        self.shape = (tokens, codes)
        self.linear = nn.Linear(features, tokens * codes)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return logits (B, K, N)."""
        return self.linear(features_BF).unflatten(1, self.shape)


class ActionHead(nn.Module):
    """One linear layer over the bins of every dimension; bins that a dimension has not are masked with -inf."""

    mask_AQ: Tensor

    def __init__(self, features: int, bins: ActionBins):
        super().__init__()
        mask = torch.from_numpy(bins.mask)
        self.linear = nn.Linear(features, mask.numel())
        self.register_buffer("mask_AQ", mask, persistent=False)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return logits (B, A, Q)."""
        logits_BAQ = self.linear(features_BF).unflatten(1, self.mask_AQ.shape)
        return logits_BAQ.masked_fill(~self.mask_AQ, -torch.inf)


class SmallVla(VlaModel):
    """The trunk with the heads of its stage."""

    text_type = Vocabulary
    large = False
    config: TrunkConfig
    text: Vocabulary
    latent_head: LatentHead | None
    action_head: ActionHead | None

    def __init__(self, config: TrunkConfig, text: Vocabulary):
        """Build the trunk; `text` decides the number of words."""
        super().__init__(config, text)
        self.trunk = FilmTrunk(config, len(text))
        self.latent_head, self.action_head = None, None

    @classmethod
    def start(cls, config: TrunkConfig, instructions: Iterable[str]) -> SmallVla:
        """Return a fresh trunk with the words of these instructions."""
        return cls(config, Vocabulary.fit(instructions))

    def prepare(
        self,
        image_BCHW: Tensor,
        instructions: Sequence[str],
        extra: Mapping[str, Tensor] | None = None,
    ) -> Inputs:
        """Return `image` and padded `words`, and the codes of earlier frames where they are read.

        Raises:
            ContractError: something else is given beside one image and an instruction.
            DataError: the codes of earlier frames are missing or of another shape.
        """
        told, others = self.take_history(len(instructions), extra)
        if others:
            raise ContractError(
                f"{sorted(others)} are given, but the small model takes one image and an instruction"
            )
        words_BL = np.stack(
            [self.text.encode(text, self.config.max_words) for text in instructions]
        )
        words = torch.from_numpy(words_BL).to(image_BCHW.device)
        return {"image": image_BCHW, "words": words, **told}

    def forget_words(self, inputs: Inputs, share: float, part: Part = ALONE) -> Inputs:
        """Replace a random share of the words by `<unk>`."""
        if share == 0.0:
            return inputs
        words_BL = inputs["words"]
        batch, length = words_BL.shape
        drawn_BL = part.draw(lambda joint: torch.rand((joint, length)), batch) < share
        return {
            **inputs,
            "words": words_BL.masked_fill(
                drawn_BL.to(words_BL.device) & (words_BL != PAD), UNKNOWN
            ),
        }

    def read(self, inputs: Inputs) -> Inputs:
        """Return the trunk's `features`, which all heads read."""
        return {"features": self.summary(inputs)}

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.features

    def summary(self, inputs: Inputs) -> Tensor:
        """Return the features (B, F)."""
        if "features" in inputs:
            return inputs["features"]
        beside_BT = None if self.earlier is None else self.earlier(inputs[HISTORY]).sum(dim=1)
        features_BF: Tensor = self.trunk(inputs["image"], inputs["words"], beside_BT)
        return features_BF

    @property
    def prompt_form(self) -> tuple[int, float]:
        """As `VlaModel`: earlier codes are added to the embedding of the words."""
        return self.config.text_dim, 1.0

    def latent_logits(self, inputs: Inputs, codes_BK: Tensor) -> Tensor:
        """Return (B, K, N); the tokens are named at once, so the codes before one change nothing."""
        self.need_latent()
        assert self.latent_head is not None
        logits_BKN: Tensor = self.latent_head(self.summary(inputs))
        return logits_BKN

    def action_logits(self, inputs: Inputs, bins_BA: Tensor) -> Tensor:
        """Return (B, A, Q); the dimensions are named at once, so the bins before one change nothing."""
        self.need_bins()
        assert self.action_head is not None
        logits_BAQ: Tensor = self.action_head(self.dropout(self.summary(inputs)))
        return logits_BAQ

    def decode(self, inputs: Inputs, head: Head, choose: Choose) -> Tensor:
        """Return all ids of a head from one forward."""
        none = torch.empty(0, dtype=torch.int64, device=self.device)
        logits = (self.latent_logits if head == "latent" else self.action_logits)(inputs, none)
        return choose(logits.flatten(0, 1)).unflatten(0, logits.shape[:2])

    def give_latent_head(self, tokens: int, codes: int) -> None:
        """Add a fresh latent head."""
        self.latent = (tokens, codes)
        self.latent_head = LatentHead(self.width, tokens, codes).to(self.device)

    def give_action_head(self, bins: ActionBins) -> None:
        """Add a fresh action head."""
        self.bins = bins
        self.action_head = ActionHead(self.width, bins).to(self.device)

    def drop_latent_head(self) -> None:
        """Take the latent head off."""
        self.latent, self.latent_head = None, None

    def drop_action_head(self) -> None:
        """Take the action head off."""
        self.bins, self.action_head = None, None

    def action_parameters(self) -> list[nn.Parameter]:
        """Return the action head's weights."""
        return [] if self.action_head is None else list(self.action_head.parameters())

    def vision_parameters(self) -> list[nn.Parameter]:
        """Return the stem's weights."""
        return list(self.trunk.stem.parameters())

    def blocks(self) -> list[nn.Module]:
        """Return none: the trunk is small."""
        return []
