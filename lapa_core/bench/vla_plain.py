# SPDX-License-Identifier: Apache-2.0
"""What one would write without this project's decoder: `transformers`' Llama and its `generate`, same weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from lapa_core.vla.decode.static import head_tokens
from lapa_core.vla.lwm.layers import llama_config

if TYPE_CHECKING:
    from lapa_core.vla.base import Head, Inputs
    from lapa_core.vla.lwm.model import LwmVla


class PlainLlama:
    """`LlamaForCausalLM` over the tensors of an LWM model: nothing is copied.

    Its rotary positions are not rounded, its residual stream has the type of the weights and invalid bins are not
    masked, so that its answers differ where the release's number formats matter.
    """

    def __init__(self, model: LwmVla, head: Head):
        """Share the layers, and the table and head that belong to `head`."""
        table, output = (
            model.tables[head].get_parameter("weight"),
            model.heads[head].get_parameter("weight"),
        )
        config = llama_config(model.config)
        config.vocab_size = table.shape[0]
        config.rope_parameters = {"rope_type": "default", "rope_theta": model.config.rope_theta}
        config.pad_token_id = config.eos_token_id = config.bos_token_id = None
        with torch.device("meta"):
            self._llama: Any = LlamaForCausalLM(config)
        layers = model.layers.state_dict(prefix="model.layers.")
        own = {
            "model.embed_tokens.weight": table,
            "model.norm.weight": model.norm.weight,
            "lm_head.weight": output,
        }
        self._llama.load_state_dict({**layers, **own}, assign=True)
        self._llama.model.rotary_emb = LlamaRotaryEmbedding(config).to(model.device)
        self._llama.eval()
        self._model, self._head = model, head

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the shared tensors."""
        yield from self._llama.parameters()

    @torch.no_grad()
    def decode(self, inputs: Inputs) -> Tensor:
        """Return the likeliest ids (B, K)."""
        tokens = head_tokens(self._model, self._head)
        ids_BK: Tensor = self._llama.generate(
            inputs_embeds=self._model.prefix_embeddings(inputs, self._head),
            attention_mask=self._model.visible(inputs, self._head).long(),
            max_new_tokens=tokens,
            do_sample=False,
        )
        return ids_BK
