# SPDX-License-Identifier: Apache-2.0
"""Teacher forcing: the logits of every token in one forward, for losses and as the decoder's reference.

Shapes: B sequences, L prefix positions, K tokens, N codes or bins, D width, T = L + K.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lapa_core.vla.decode.cache import attention_mask
from lapa_core.vla.decode.protocol import SequenceModel

if TYPE_CHECKING:
    from lapa_core.vla.base import Head, Inputs


def forced_logits(model: SequenceModel, inputs: Inputs, head: Head, ids_BK: Tensor) -> Tensor:
    """Return logits (B, K, N); token k sees the ids before k, or none of them where the head decodes in parallel.

    Fewer ids than the head has tokens give the logits of so many tokens.
    """
    tokens = ids_BK.shape[1]
    prefix_BLD = model.prefix_embeddings(inputs, head)
    queries_KD = model.queries(head)
    if queries_KD is None:
        given = [model.embed(head, ids_BK[:, k], k) for k in range(tokens - 1)]
        rest = torch.stack(given, dim=1) if given else prefix_BLD[:, :0]
    else:
        rest = queries_KD.expand(len(prefix_BLD), -1, -1)
    embeddings_BTD = torch.cat([prefix_BLD, rest], dim=1)
    positions = model.positions(inputs, head)
    positions = torch.cat([positions, next_positions(positions, rest.shape[1])], dim=-1)
    mask = _mask(model, inputs, head, prefix_BLD, rest.shape[1])
    hidden_BTD = model.backbone(embeddings_BTD, positions, mask, None)
    first = prefix_BLD.shape[1] - (queries_KD is None)
    logits = [model.logits(head, hidden_BTD[:, first + k], k) for k in range(tokens)]
    return torch.stack(logits, dim=1)


def next_positions(positions: Tensor, count: int) -> Tensor:
    """Return the positions (..., B, count) behind a prefix: one more than its largest (of all axes), and on."""
    last = positions.amax(dim=-1, keepdim=True)
    if last.ndim == 3:
        last = last.amax(dim=0, keepdim=True).expand_as(last)
    return last + torch.arange(1, count + 1, device=positions.device)


def _mask(
    model: SequenceModel, inputs: Inputs, head: Head, prefix_BLD: Tensor, tokens: int
) -> Tensor | None:
    """Return the mask of one forward over prefix and tokens; none where plain causal attention is right."""
    visible_BL = model.visible(inputs, head)
    if visible_BL is None and not model.full_prefix:
        return None
    if visible_BL is None:
        visible_BL = prefix_BLD.new_ones(prefix_BLD.shape[:2], dtype=torch.bool)
    total = prefix_BLD.shape[1] + tokens
    return attention_mask(
        visible_BL, tokens, total, prefix_BLD.dtype, full_prefix=model.full_prefix
    )
