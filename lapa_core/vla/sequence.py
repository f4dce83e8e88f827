# SPDX-License-Identifier: Apache-2.0
"""What all policy models have in common that answer with a sequence of tokens."""

from __future__ import annotations

from torch import Tensor

from lapa_core.vla.base import Choose, Head, Inputs, VlaModel
from lapa_core.vla.decode.cache import attention_mask
from lapa_core.vla.decode.forced import forced_logits
from lapa_core.vla.decode.protocol import SequenceModel
from lapa_core.vla.decode.static import decode_sequence


class SequenceVla(VlaModel, SequenceModel):
    """A `VlaModel` over what a `SequenceModel` shows."""

    def latent_logits(self, inputs: Inputs, codes_BK: Tensor) -> Tensor:
        """As `VlaModel`."""
        self.need_latent()
        return forced_logits(self, inputs, "latent", codes_BK)

    def action_logits(self, inputs: Inputs, bins_BA: Tensor) -> Tensor:
        """As `VlaModel`."""
        self.need_bins()
        return forced_logits(self, inputs, "action", bins_BA)

    def decode(self, inputs: Inputs, head: Head, choose: Choose) -> Tensor:
        """As `VlaModel`."""
        return decode_sequence(self, inputs, head, choose)

    def summary(self, inputs: Inputs) -> Tensor:
        """As `VlaModel`: the state (B, D) just before an action's first token."""
        embeddings_BLD = self.prefix_embeddings(inputs, "action")
        visible_BL = self.visible(inputs, "action")
        if visible_BL is None:
            visible_BL = embeddings_BLD.new_ones(embeddings_BLD.shape[:2]).bool()
        mask = attention_mask(
            visible_BL, 0, visible_BL.shape[1], embeddings_BLD.dtype, full_prefix=self.full_prefix
        )
        positions = self.positions(inputs, "action")
        return self.backbone(embeddings_BLD, positions, mask, None)[:, -1]
