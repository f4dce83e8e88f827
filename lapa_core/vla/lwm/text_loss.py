# SPDX-License-Identifier: Apache-2.0
"""The release's loss of latent pretraining: 0.99 of the codes' cross-entropy, 0.01 of a text loss.

Source: facts/lapa.md 2.4. The text loss is the text head's over everything behind `</vision>`: the opening tag, the
closing tag, the end mark, and, by a slip in the release's mask, the codes' own places, where it learns id 0. The
paper has the codes' loss alone; this is for runs that shall match the release.

Shapes: B sequences, K codes of a frame, N codes, S positions of the tail (11 in the release).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lapa_core.errors import CheckpointError
from lapa_core.vla.base import Inputs
from lapa_core.vla.decode.cache import attention_mask
from lapa_core.vla.decode.forced import next_positions
from lapa_core.vla.lwm.model import LwmVla
from lapa_core.vla.lwm.prompt import closing, tag

RELEASE_WEIGHTS = {"latent": 0.99, "text": 0.01}
"""Share of each loss in the release."""


class TailLogits(NamedTuple):
    """What both heads say about one answer, from one forward."""

    latent_BKN: Tensor
    """Of the codes, as `latent_logits` gives them."""
    text_BSN: Tensor
    """Of the text head."""
    text_BS: Tensor
    """Ids that the text head is trained towards."""


def tail_logits(model: LwmVla, inputs: Inputs, codes_BK: Tensor) -> TailLogits:
    """Return the logits of codes and text behind the frame, teacher forced.

    Raises:
        CheckpointError: the model has no latent head or no tokenizer.
    """
    model.need_latent()
    if model.text is None:
        raise CheckpointError("this model was made without a tokenizer, to be counted only")
    opened, closed = tag(model.text, "latent"), closing(model.text, "latent")
    tokens = codes_BK.shape[1]
    targets = torch.tensor([*opened, *[0] * tokens, *closed], device=codes_BK.device)
    closed_BC = targets[-len(closed) : -1].expand(len(codes_BK), -1)
    prefix_BLD = model.prefix_embeddings(inputs, "latent")
    parts = (
        prefix_BLD,
        model.embed_space("latent", codes_BK),
        model.embed_space("text", closed_BC),
    )
    behind = tokens + closed_BC.shape[1]
    visible_BL = model.visible(inputs, "latent")
    total = visible_BL.shape[1] + behind
    mask = attention_mask(visible_BL, behind, total, prefix_BLD.dtype)
    positions = model.positions(inputs, "latent")
    positions = torch.cat([positions, next_positions(positions, behind)], dim=-1)
    hidden_BSD = model.backbone(torch.cat(parts, dim=1), positions, mask, None)[:, -len(targets) :]
    return TailLogits(
        model.head_logits("latent", hidden_BSD[:, len(opened) : len(opened) + tokens]),
        model.head_logits("text", hidden_BSD),
        targets.expand(len(codes_BK), -1),
    )


def release_loss(tail: TailLogits, codes_BK: Tensor) -> Tensor:
    """Return the release's loss, a mean over sequences and their places."""
    latent = F.cross_entropy(tail.latent_BKN.flatten(0, 1), codes_BK.flatten())
    text = F.cross_entropy(tail.text_BSN.flatten(0, 1), tail.text_BS.flatten())
    return RELEASE_WEIGHTS["latent"] * latent + RELEASE_WEIGHTS["text"] * text
