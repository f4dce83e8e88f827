# SPDX-License-Identifier: Apache-2.0
"""What one training step of a latent action model minimises, as one module: DDP, FSDP2 and the compiler wrap it.

Shapes: B pairs, C channels, H W pixels, A action dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapa_core.laq.action_head import ActionHead, head_input
from lapa_core.laq.base import LatentActionModel


class Labelled(NamedTuple):
    """Pairs with actions."""

    x0_BCHW: Tensor
    """First frames in [0, 1]."""
    x1_BCHW: Tensor
    """Later frames in [0, 1]."""
    actions_BA: Tensor
    """What was done between them, in its own units."""


class LaqObjective(nn.Module):
    """Reconstruction of the later frame, and with a head the actions of labelled pairs."""

    def __init__(
        self,
        model: LatentActionModel,
        head: ActionHead | None = None,
        *,
        action_weight: float = 0.0,
        precision: str = "fp32",
    ):
        """Join a model and its head.

        Args:
            model: what is trained.
            head: reads actions off its latents; None trains on frames alone.
            action_weight: weight of the head's error.
            precision: fp32, or bf16 for matrix products in bfloat16.
        """
        super().__init__()
        self.model, self.head = model, head
        self.action_weight, self.bf16 = action_weight, precision == "bf16"

    def forward(
        self,
        seen0_BCHW: Tensor,
        seen1_BCHW: Tensor,
        start_BCHW: Tensor,
        later_BCHW: Tensor,
        labelled: Labelled | None = None,
    ) -> dict[str, Tensor]:
        """Return `loss`, which is to be minimised, and its parts.

        Args:
            seen0_BCHW: first frames as the encoder sees them.
            seen1_BCHW: later frames as the encoder sees them.
            start_BCHW: first frames as the decoder starts from them.
            later_BCHW: later frames as the decoder shall make them.
            labelled: pairs for the head.
        """
        with torch.autocast(seen0_BCHW.device.type, torch.bfloat16, enabled=self.bf16):
            predicted = self.model.predict(seen0_BCHW, seen1_BCHW, start_BCHW)
            auxiliary = self.model.auxiliary_loss()  # of this prediction, not of the labelled pairs
            latent = (
                None
                if self.head is None or labelled is None
                else head_input(self.model, labelled.x0_BCHW, labelled.x1_BCHW)
            )
            with torch.no_grad():
                wanted = self.model.target(later_BCHW)
        reconstruction = F.mse_loss(predicted.float(), wanted.float())
        losses = {"loss": reconstruction + auxiliary}
        if self.head is not None and labelled is not None and latent is not None:
            action = self.head.loss(latent.float(), labelled.actions_BA)
            losses = {
                "loss": losses["loss"] + self.action_weight * action,
                "reconstruction": reconstruction.detach(),
                "action": action.detach(),
            }
        return losses
