# SPDX-License-Identifier: Apache-2.0
"""Keys and values in tensors of fixed shape and address, and who may attend to whom in them.

Shapes: B sequences, L prefix positions, K tokens, T = L + K, S slots (T rounded up), Q queries, H key-value heads,
W head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUND = 8
"""Slots are a multiple of this: the fused attention kernels copy a mask whose rows are not 16-byte aligned."""


def slots_for(positions: int) -> int:
    """Return S, the number of slots for T positions."""
    return -(-positions // _ROUND) * _ROUND


class StaticKv:
    """Keys and values of every layer; a layer's tensors are made when it first writes."""

    def __init__(self, slots: int):
        """Keep S slots per sequence and layer."""
        self._slots = slots
        self._layers: list[tuple[Tensor, Tensor]] = []
        self.slots_Q = torch.zeros(0, dtype=torch.int64)
        """Where the next call writes, on the model's device."""

    def update(
        self, key_BHQW: Tensor, value_BHQW: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Write at `slots_Q`; return all slots, (B, H, S, W) each. Layers come in order."""
        if layer == len(self._layers):
            self._layers.append((self._empty(key_BHQW), self._empty(value_BHQW)))
        keys_BHSW, values_BHSW = self._layers[layer]
        keys_BHSW.index_copy_(2, self.slots_Q, key_BHQW)
        values_BHSW.index_copy_(2, self.slots_Q, value_BHQW)
        return keys_BHSW, values_BHSW

    def _empty(self, like_BHQW: Tensor) -> Tensor:
        """Return zeros, not memory as found: a masked slot's weight is 0, and 0 times NaN is NaN."""
        batch, heads, _, width = like_BHQW.shape
        return like_BHQW.new_zeros(batch, heads, self._slots, width)


def attention_mask(
    visible_BL: Tensor, tokens: int, slots: int, dtype: torch.dtype, *, full_prefix: bool = False
) -> Tensor:
    """Return what is added to attention logits, (B, 1, T, S): 0, or the lowest number of `dtype`.

    A position sees itself (padding too: a row without anything would be NaN), and what is visible before it;
    with `full_prefix` the prefix positions also see visible prefix positions behind them.

    Args:
        visible_BL: bool, false at padding.
        tokens: K positions behind the prefix, all visible; T = L + K.
        slots: S >= T.
        dtype: of the mask.
        full_prefix: attention in both directions inside the prefix.
    """
    length, device = visible_BL.shape[1], visible_BL.device
    row_T1 = torch.arange(length + tokens, device=device)[:, None]
    column_S = torch.arange(slots, device=device)
    before_TS = column_S <= row_T1
    if full_prefix:
        before_TS = before_TS | ((row_T1 < length) & (column_S < length))
    there_BS = torch.nn.functional.pad(visible_BL, (0, slots - length), value=True)
    seen_BTS = (before_TS & there_BS[:, None]) | (column_S == row_T1)
    mask_BTS = torch.zeros(seen_BTS.shape, dtype=dtype, device=device)
    return mask_BTS.masked_fill_(~seen_BTS, torch.finfo(dtype).min)[:, None]
