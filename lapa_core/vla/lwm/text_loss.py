# SPDX-License-Identifier: Apache-2.0
"""The text loss that the release adds in latent pretraining: 0.99 of the codes' loss and 0.01 of this one.

Source: facts/lapa.md 2.4. The text head is trained on everything behind `</vision>`: the opening tag, the closing tag,
the end mark, and, by a slip in the release's mask, the codes' own places, where it learns id 0. The paper has the
codes' loss alone; this is for runs that shall match the release.

Shapes: B sequences, K codes of a frame, N codes or text ids, S positions of the tail (11 in the release).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lapa_core.vla.decode.cache import attention_mask
from lapa_core.vla.decode.forced import next_positions
from lapa_core.vla.lwm.prompt import closing, tag
from lapa_core.vla.lwm.tokenizer import SentencePieceText

if TYPE_CHECKING:
    from lapa_core.vla.base import Inputs
    from lapa_core.vla.lwm.model import LwmVla


class TailLogits(NamedTuple):
    """What both heads say about one answer, from one forward."""

    latent_BKN: Tensor
    """Of the codes, as `latent_logits` gives them."""
    text_BSN: Tensor
    """Of the text head."""
    text_BS: Tensor
    """Ids that the text head is trained towards."""


def tail_logits(
    model: LwmVla, text: SentencePieceText, inputs: Inputs, codes_BK: Tensor
) -> TailLogits:
    """Return the logits of codes and text behind the frame, teacher forced."""
    batch, tokens = codes_BK.shape
    opened, closed = tag(text, "latent"), closing(text, "latent")
    targets_S = torch.tensor([*opened, *[0] * tokens, *closed], device=codes_BK.device)
    targets_BS = targets_S.expand(batch, -1)
    codes = slice(len(opened), len(opened) + tokens)
    parts = (
        model.prefix_embeddings(inputs, "latent"),
        model.embed_space("latent", codes_BK),
        model.embed_space("text", targets_BS[:, codes.stop : -1]),
    )
    positions, visible_BL = model.positions(inputs, "latent"), model.visible(inputs, "latent")
    behind = tokens + len(closed) - 1
    positions = torch.cat([positions, next_positions(positions, behind)], dim=-1)
    mask = attention_mask(visible_BL, behind, positions.shape[1], parts[0].dtype)
    hidden_BTD = model.backbone(torch.cat(parts, dim=1), positions, mask, None)
    hidden_BSD = hidden_BTD[:, -targets_BS.shape[1] :]
    return TailLogits(
        model.head_logits("latent", hidden_BSD[:, codes]),
        model.head_logits("text", hidden_BSD),
        targets_BS,
    )
