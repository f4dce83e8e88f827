# SPDX-License-Identifier: Apache-2.0
"""Trunk and heads. A head is one linear layer, as in the paper: the latent head over codes, the action head over bins.

Shapes: B frames, F features, K latent tokens, N codes, A action dimensions (7), Q bins of the largest dimension.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import CheckpointError
from lapa_core.vla.config import TrunkConfig
from lapa_core.vla.trunk import FilmTrunk

_CONSTANT = 1e-9
"""Spread below which a dimension counts as constant."""


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
    centres_AQ: Tensor

    def __init__(self, features: int, bins: ActionBins):
        super().__init__()
        mask = torch.from_numpy(bins.mask)
        centres = torch.zeros(mask.shape)
        for row, own in zip(centres, bins.centres, strict=True):
            spread = max(float(own.std()), _CONSTANT)
            row[: len(own)] = torch.from_numpy((own - own.mean()) / spread)
        self.linear = nn.Linear(features, mask.numel())
        self.register_buffer("mask_AQ", mask, persistent=False)
        self.register_buffer("centres_AQ", centres, persistent=False)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return logits (B, A, Q)."""
        logits_BAQ = self.linear(features_BF).unflatten(1, self.mask_AQ.shape)
        return logits_BAQ.masked_fill(~self.mask_AQ, -torch.inf)


class VlaModel(nn.Module):
    """A trunk with the head of its stage: the latent head after pretraining, the action head after finetuning."""

    def __init__(
        self,
        config: TrunkConfig,
        words: int,
        *,
        latent: tuple[int, int] | None = None,
        bins: ActionBins | None = None,
    ):
        """Build the model.

        Args:
            config: trunk sizes.
            words: size of the vocabulary.
            latent: (tokens, codes) of the latent head; none builds no latent head.
            bins: bins of the action head; none builds no action head.
        """
        super().__init__()
        self.trunk = FilmTrunk(config, words)
        self.latent_head = None if latent is None else LatentHead(config.features, *latent)
        self.action_head = None if bins is None else ActionHead(config.features, bins)

    def need_latent_head(self) -> LatentHead:
        """Return the latent head.

        Raises:
            CheckpointError: the model has none.
        """
        if self.latent_head is None:
            raise CheckpointError(
                "this model has no latent head; `lapa vla pretrain` makes one that has"
            )
        return self.latent_head

    def need_action_head(self) -> ActionHead:
        """Return the action head.

        Raises:
            CheckpointError: the model has none.
        """
        if self.action_head is None:
            raise CheckpointError(
                "this model has no action head; `lapa vla finetune` makes one that has"
            )
        return self.action_head


def latent_loss(
    logits_BKN: Tensor, codes_BK: Tensor, centres_ND: Tensor, mean_weight: float
) -> Tensor:
    """Return the training loss of the latent head, over tokens and frames.

    It is the cross-entropy, plus `mean_weight` times the distance of the predicted mean code vector from the
    label's (`centres_ND`, standardised): codes with close vectors mean nearly the same motion.
    """
    loss = F.cross_entropy(logits_BKN.flatten(0, 1), codes_BK.flatten())
    if mean_weight == 0.0:
        return loss
    mean_BKD = logits_BKN.softmax(dim=-1) @ centres_ND
    return loss + mean_weight * F.smooth_l1_loss(mean_BKD, centres_ND[codes_BK])


def soft_targets(bins_BA: Tensor, mask_AQ: Tensor, width_bins: float) -> Tensor:
    """Return target distributions (B, A, Q): a Gaussian of `width_bins` around each label, inside its dimension's bins.

    With width 0 each target is one-hot. Bins are ordered, so the neighbours of a label are nearly right.
    """
    distance_BAQ = torch.arange(mask_AQ.shape[1], device=bins_BA.device) - bins_BA.unsqueeze(-1)
    if width_bins == 0.0:
        weight_BAQ = (distance_BAQ == 0).float()
    else:
        weight_BAQ = torch.exp(-0.5 * (distance_BAQ / width_bins).square())
    weight_BAQ = weight_BAQ * mask_AQ
    return weight_BAQ / weight_BAQ.sum(dim=-1, keepdim=True)


def action_loss(
    logits_BAQ: Tensor, bins_BA: Tensor, head: ActionHead, width_bins: float, mean_weight: float
) -> Tensor:
    """Return the training loss of the action head, over the dimensions that have more than one bin.

    It is the cross-entropy with soft targets, plus `mean_weight` times the error of the predicted distribution's
    mean, in standard deviations of the bin centres. The second term tells a near miss from a far one at once;
    cross-entropy alone needs several times the steps to leave the plateau at the start.
    """
    live_A = head.mask_AQ.sum(dim=1) > 1
    log_probability = logits_BAQ.log_softmax(dim=-1).masked_fill(~head.mask_AQ, 0.0)
    loss_BA = -(soft_targets(bins_BA, head.mask_AQ, width_bins) * log_probability).sum(dim=-1)
    if mean_weight:
        mean_BA = (log_probability.exp() * head.mask_AQ * head.centres_AQ).sum(dim=-1)
        label_BA = (
            head.centres_AQ.expand(len(bins_BA), -1, -1)
            .gather(2, bins_BA.unsqueeze(-1))
            .squeeze(-1)
        )
        loss_BA = loss_BA + mean_weight * F.smooth_l1_loss(mean_BA, label_BA, reduction="none")
    return loss_BA[:, live_A].mean()
