# SPDX-License-Identifier: Apache-2.0
"""Llama's decoder layer out of the modules of `transformers`, with the number formats of the release.

The stream between the layers may be float32 while the layers compute in bfloat16; rotations are made in float32.

Shapes: B sequences, Q positions, S positions attended to, D width, H heads, W head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

from lapa_core.vla.decode.protocol import KvStore
from lapa_core.vla.lwm.config import LwmConfig
from lapa_core.vla.lwm.rope import rotate


def llama_config(config: LwmConfig) -> LlamaConfig:
    """Return what the modules of `transformers` ask for."""
    return LlamaConfig(
        vocab_size=config.vocab,
        hidden_size=config.hidden,
        intermediate_size=config.inter,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        rms_norm_eps=config.rms_eps,
    )


class LwmNorm(LlamaRMSNorm):
    """Root-mean-square norm from a float32 stream into the type that linear layers compute in."""

    def forward(self, x_BQD: Tensor) -> Tensor:
        """Normalise the last axis."""
        device = x_BQD.device.type
        cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if cast else self.weight.dtype
        normed_BQD = F.rms_norm(x_BQD, x_BQD.shape[-1:], eps=self.variance_epsilon)
        return normed_BQD.to(dtype) * self.weight.to(dtype)


class LwmAttention(LlamaAttention):
    """Causal self-attention over a fused kernel."""

    def forward(  # type: ignore[override]
        self,
        x_BQD: Tensor,
        table: tuple[Tensor, Tensor],
        mask_B1QS: Tensor | None,
        cache: KvStore | None,
    ) -> Tensor:
        """Return (B, Q, D); see `LwmLayer`."""
        query, key, value = (
            part(x_BQD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = rotate(torch.cat([query, key], dim=1), table).chunk(2, dim=1)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        if mask_B1QS is not None and mask_B1QS.dtype != value.dtype:
            least = torch.finfo(value.dtype).min
            mask_B1QS = mask_B1QS.clamp(min=least).to(value.dtype)
        causal = mask_B1QS is None and query.shape[2] > 1
        out_BHQW = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask_B1QS, is_causal=causal
        )
        out_BQD: Tensor = self.o_proj(out_BHQW.transpose(1, 2).flatten(2))
        return out_BQD


class LwmLayer(nn.Module):
    """Attention and feed-forward around the residual stream; named as `transformers` names them."""

    def __init__(self, config: LwmConfig, index: int):
        super().__init__()
        sizes = llama_config(config)
        self.self_attn = LwmAttention(sizes, index)
        self.mlp = LlamaMLP(sizes)
        self.input_layernorm = LwmNorm(config.hidden, config.rms_eps)
        self.post_attention_layernorm = LwmNorm(config.hidden, config.rms_eps)

    def forward(
        self,
        x_BQD: Tensor,
        table: tuple[Tensor, Tensor],
        mask_B1QS: Tensor | None,
        cache: KvStore | None,
    ) -> Tensor:
        """Return the updated stream.

        Args:
            x_BQD: in its own type, which is kept.
            table: of `rotary_table`.
            mask_B1QS: added to the logits; none: plain causal attention.
            cache: earlier keys and values, or none.
        """
        x_BQD = x_BQD + self.self_attn(self.input_layernorm(x_BQD), table, mask_B1QS, cache)
        return x_BQD + self.mlp(self.post_attention_layernorm(x_BQD))
