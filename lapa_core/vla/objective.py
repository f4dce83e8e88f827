# SPDX-License-Identifier: Apache-2.0
"""What the stages minimise, as modules: DDP and FSDP2 wrap these, and a step calls nothing else of the model.

Shapes: B frames, K latent tokens, N codes, D numbers of a code's vector, A action dimensions (7), Q bins of the
largest dimension, H actions of a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.vla.base import Inputs, VlaModel
from lapa_core.vla.chunk import chunk_loss
from lapa_core.vla.losses import BinScale, action_loss, latent_loss
from lapa_core.vla.metrics import as_row, token_names

UNLABELLED = -1
"""Code of a frame that has none: the last ones of an episode."""


class PretrainObjective(nn.Module):
    """Name the codes that follow a frame."""

    centres_ND: Tensor

    def __init__(
        self,
        model: VlaModel,
        centres_ND: Tensor,
        *,
        mean_weight: float,
        text_weight: float = 0.0,
        bf16: bool = False,
    ):
        """Join a model that has a latent head with the standardised vectors of its codes.

        Raises:
            ContractError: a text weight for a model that learns no text.
        """
        super().__init__()
        if text_weight:
            model.learn_text()
        self.model = model
        self.mean_weight, self.text_weight, self.bf16 = mean_weight, text_weight, bf16
        self.names = token_names(model.need_latent()[0])
        self.register_buffer("centres_ND", centres_ND, persistent=False)

    def forward(
        self, inputs: Inputs, labels: dict[str, Tensor], held: bool = False
    ) -> dict[str, Tensor]:
        """Return `loss`, which is to be minimised, and what is logged; labels are `codes` (B, K).

        Nothing is ever held in this stage.

        In evaluation mode also `predicted`, the likeliest codes (B, K).
        """
        codes_BK = labels["codes"]
        with torch.autocast(codes_BK.device.type, torch.bfloat16, enabled=self.bf16):
            if self.text_weight:
                logits_BKN, text = self.model.latent_and_text(inputs, codes_BK)
            else:
                logits_BKN, text = self.model.latent_logits(inputs, codes_BK), None
        logits_BKN = logits_BKN.float()
        loss = latent_loss(logits_BKN, codes_BK, self.centres_ND, self.mean_weight)
        if text is not None:
            loss = (1.0 - self.text_weight) * loss + self.text_weight * text
        chosen_BK = logits_BKN.detach().argmax(dim=-1)
        hits_K = (chosen_BK == codes_BK).float().mean(dim=0)
        return {
            **({} if self.training else {"predicted": chosen_BK}),
            "loss": loss,
            **({} if text is None else {"text": text.detach()}),
            "accuracy": hits_K.mean(),
            **(as_row("accuracy", hits_K, self.names) if len(self.names) > 1 else {}),
        }


class FinetuneObjective(nn.Module):
    """Name the bins of the action, or tell a chunk of actions; with a weight also the codes."""

    def __init__(
        self,
        model: VlaModel,
        *,
        smoothing_bins: float,
        mean_weight: float,
        latent_weight: float = 0.0,
        bf16: bool = False,
    ):
        """Take a model that has an action head or a continuous one, and for a latent weight a latent head."""
        super().__init__()
        self.model = model
        self.scale = None if model.bins is None else BinScale(model.bins)
        self.smoothing_bins, self.mean_weight = smoothing_bins, mean_weight
        self.latent_weight, self.bf16 = latent_weight, bf16

    def forward(
        self, inputs: Inputs, labels: dict[str, Tensor], held: bool = False
    ) -> dict[str, Tensor]:
        """Return `loss`, which is to be minimised, and what is logged.

        In evaluation mode also `predicted`: the likeliest bins (B, A), or the first action of the chunk (B, A).

        Args:
            inputs: of the model.
            labels: `bins` (B, A), or `chunk` (B, H, A) and `known` (B, H); `codes` (B, K) for a latent weight.
            held: whether what the heads share stands still, so that its gradients need not be computed.
        """
        device_type = next(iter(labels.values())).device.type
        with torch.autocast(device_type, torch.bfloat16, enabled=self.bf16):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not held):
                inputs = self.model.read(inputs)
            parts = (
                self._continuous(inputs, labels)
                if self.scale is None
                else self._bins(inputs, labels)
            )
            if self.latent_weight:
                latent = self._latent(inputs, labels["codes"])
                parts = {**parts, "loss": parts["loss"] + self.latent_weight * latent}
                parts["latent"] = latent.detach()
        return parts

    def _bins(self, inputs: Inputs, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        assert self.scale is not None
        bins_BA = labels["bins"]
        logits_BAQ = self.model.action_logits(inputs, bins_BA).float()
        loss = action_loss(logits_BAQ, bins_BA, self.scale, self.smoothing_bins, self.mean_weight)
        chosen_BA = logits_BAQ.detach().argmax(dim=-1)
        hits_A = (chosen_BA == bins_BA).float().mean(dim=0)
        return {
            **({} if self.training else {"predicted": chosen_BA}),
            "loss": loss,
            **as_row("accuracy", hits_A, ACTION_NAMES),
        }

    def _continuous(self, inputs: Inputs, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        assert self.model.chunk_head is not None
        actions_BHA = self.model.chunk_actions(inputs)
        spread_A = self.model.chunk_head.spread_A
        return {
            **({} if self.training else {"predicted": actions_BHA[:, 0]}),
            "loss": chunk_loss(actions_BHA, labels["chunk"], labels["known"], spread_A),
        }

    def _latent(self, inputs: Inputs, codes_BK: Tensor) -> Tensor:
        """Return the cross-entropy over all frames; one without codes adds nothing.

        So the parts of a batch (`micro_batch`, processes) add up to the batch, whichever has the frames with codes.
        """
        logits_BKN = self.model.latent_logits(inputs, codes_BK.clamp(min=0)).float()
        total = F.cross_entropy(
            logits_BKN.flatten(0, 1), codes_BK.flatten(), ignore_index=UNLABELLED, reduction="sum"
        )
        return total / codes_BK.numel()
