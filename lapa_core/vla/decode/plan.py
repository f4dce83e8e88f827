# SPDX-License-Identifier: Apache-2.0
"""Decoding at one shape: every buffer has a fixed size and address, and nothing waits for the device.

Shapes: B sequences, L prefix positions (P of them prompt), K tokens, D width, S slots, T = L + K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lapa_core.vla.decode.cache import StaticKv, attention_mask, slots_for
from lapa_core.vla.decode.choose import Choose
from lapa_core.vla.decode.forced import next_positions
from lapa_core.vla.decode.protocol import SequenceModel

if TYPE_CHECKING:
    from lapa_core.vla.base import Head

Backbone = Callable[[SequenceModel, Tensor, Tensor, Tensor | None, StaticKv], Tensor]
"""`type(model).backbone`, or what was compiled of it."""


class Prefix(NamedTuple):
    """What comes before the answer."""

    embeddings_BLD: Tensor
    """Of text, image and marks."""
    positions: Tensor
    """(B, L) or (3, B, L)."""
    visible_BL: Tensor
    """False at padding."""


def round_up(prefix: Prefix) -> Prefix:
    """Repeat the last sequence until there are 1, 2, 4, 8, ..., so that few batch sizes occur."""
    batch = len(prefix.visible_BL)
    if (size := 1 << (batch - 1).bit_length()) == batch:
        return prefix
    rows = torch.arange(size, device=prefix.visible_BL.device).clamp_max(batch - 1)
    return Prefix(
        prefix.embeddings_BLD[rows], prefix.positions[..., rows, :], prefix.visible_BL[rows]
    )


class _Layout(NamedTuple):
    """Where the T positions are, and who sees whom."""

    positions: Tensor
    """(B, T) or (3, B, T)."""
    mask_B1TS: Tensor
    """Added to attention logits."""


class Plan:
    """The buffers for one batch size, prefix length and head, and the two computations over them."""

    def __init__(self, prefix: Prefix, head: Head, tokens: int, prompt: int):
        """Make buffers like `prefix`.

        Args:
            prefix: one of this shape.
            head: which head answers.
            tokens: K.
            prompt: P, the leading positions that `read_prompt` takes and `answer` does not.
        """
        self._head, self._tokens, self._prompt = head, tokens, prompt
        self.prefix = Prefix(*(torch.zeros_like(part) for part in prefix))
        batch, self._length = prefix.visible_BL.shape
        device = prefix.visible_BL.device
        self._slots = slots_for(self._length + tokens)
        self._slot_T = torch.arange(self._length + tokens, device=device)
        self._cache = StaticKv(self._slots)
        self.ids_BK = torch.zeros(batch, tokens, dtype=torch.int64, device=device)
        """The answer."""

    def fill(self, prefix: Prefix) -> None:
        """Copy a prefix into the buffers."""
        for mine, given in zip(self.prefix, prefix, strict=True):
            mine.copy_(given)

    def read_prompt(self, model: SequenceModel) -> None:
        """Compute the keys and values of the prompt; they stay for all answers until the next call."""
        prompt = slice(0, self._prompt)
        embeddings_BPD = self.prefix.embeddings_BLD[:, prompt]
        self._run(type(model).backbone, model, embeddings_BPD, prompt, self._layout(model))

    def answer(self, model: SequenceModel, choose: Choose, backbone: Backbone) -> None:
        """Read the rest of the prefix and write the answer into `ids_BK`. Recordable in a CUDA graph."""
        layout = self._layout(model)
        queries_KD = model.queries(self._head)
        embeddings_BQD = self.prefix.embeddings_BLD[:, self._prompt :]
        if queries_KD is not None:
            queries_BKD = queries_KD.expand(len(embeddings_BQD), -1, -1)
            embeddings_BQD = torch.cat([embeddings_BQD, queries_BKD], dim=1)
        read = slice(self._prompt, self._prompt + embeddings_BQD.shape[1])
        hidden_BQD = self._run(backbone, model, embeddings_BQD, read, layout)
        for k in range(self._tokens):
            if queries_KD is not None:
                hidden_BD = hidden_BQD[:, k - self._tokens]
            elif k == 0:
                hidden_BD = hidden_BQD[:, -1]
            else:
                place = self._length + k - 1
                embedding_BD = model.embed(self._head, self.ids_BK[:, k - 1], k - 1)
                one = slice(place, place + 1)
                hidden_BD = self._run(backbone, model, embedding_BD[:, None], one, layout)[:, 0]
            self.ids_BK[:, k] = choose(model.logits(self._head, hidden_BD, k))

    def _layout(self, model: SequenceModel) -> _Layout:
        _, positions, visible_BL = self.prefix
        behind = next_positions(positions, self._tokens)
        mask = attention_mask(
            visible_BL,
            self._tokens,
            self._slots,
            self.prefix.embeddings_BLD.dtype,
            full_prefix=model.full_prefix,
        )
        return _Layout(torch.cat([positions, behind], dim=-1), mask)

    def _run(
        self,
        backbone: Backbone,
        model: SequenceModel,
        embeddings_BQD: Tensor,
        part: slice,
        layout: _Layout,
    ) -> Tensor:
        """Run these positions of the sequence, (B, Q, D), against all before them."""
        self._cache.slots_Q = self._slot_T[part]
        return backbone(
            model,
            embeddings_BQD,
            layout.positions[..., part],
            layout.mask_B1TS[:, :, part],
            self._cache,
        )
