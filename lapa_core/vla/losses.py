# SPDX-License-Identifier: Apache-2.0
"""Training losses of the latent and the action head, on logits of any model.

Shapes: B frames, K latent tokens, N codes, D numbers of a code's vector, A action dimensions (7), Q bins of the
largest dimension.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapa_core.actions.bins import ActionBins

_CONSTANT = 1e-9
"""Spread below which a dimension counts as constant."""


class BinScale(nn.Module):
    """Which bins exist and what they stand for, as buffers that move with the model."""

    mask_AQ: Tensor
    """True where a dimension has the bin."""
    centres_AQ: Tensor
    """Centres of the bins in standard deviations of the dimension's centres; 0 where there is none."""

    def __init__(self, bins: ActionBins):
        super().__init__()
        mask = torch.from_numpy(bins.mask)
        centres = torch.zeros(mask.shape)
        for row, own in zip(centres, bins.centres, strict=True):
            spread = max(float(own.std()), _CONSTANT)
            row[: len(own)] = torch.from_numpy((own - own.mean()) / spread)
        self.register_buffer("mask_AQ", mask, persistent=False)
        self.register_buffer("centres_AQ", centres, persistent=False)


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
    logits_BAQ: Tensor, bins_BA: Tensor, scale: BinScale, width_bins: float, mean_weight: float
) -> Tensor:
    """Return the training loss of the action head, over the dimensions that have more than one bin.

    It is the cross-entropy with soft targets, plus `mean_weight` times the error of the predicted distribution's
    mean, in standard deviations of the bin centres. The second term tells a near miss from a far one at once;
    cross-entropy alone needs several times the steps to leave the plateau at the start.
    """
    live_A = scale.mask_AQ.sum(dim=1) > 1
    log_probability = logits_BAQ.log_softmax(dim=-1).masked_fill(~scale.mask_AQ, 0.0)
    loss_BA = -(soft_targets(bins_BA, scale.mask_AQ, width_bins) * log_probability).sum(dim=-1)
    if mean_weight:
        mean_BA = (log_probability.exp() * scale.mask_AQ * scale.centres_AQ).sum(dim=-1)
        label_BA = (
            scale.centres_AQ.expand(len(bins_BA), -1, -1)
            .gather(2, bins_BA.unsqueeze(-1))
            .squeeze(-1)
        )
        loss_BA = loss_BA + mean_weight * F.smooth_l1_loss(mean_BA, label_BA, reduction="none")
    return loss_BA[:, live_A].mean()
