# SPDX-License-Identifier: Apache-2.0
"""The LWM / LAPA-7B policy model: one sequence of text, frame and answer tokens through a Llama.

Each kind of token (text, vision, latent, action) has ids from 0, an embedding table and a head of its own. A head is
one linear layer without bias (the paper's section 3.2). As in the release nothing is frozen but the VQGAN; the text
and vision heads, which no loss of the paper reaches, stand still too. `text_loss.py` has the release's text loss.
Frames come as everywhere here, cut to the middle square; the release squeezes the whole picture into one.

Shapes: B sequences, T prompt positions, V ids of a frame and its end mark, L prefix positions, Q positions of a call,
K tokens of an answer, N codes or bins, A action dimensions (7), D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import CheckpointError, ContractError
from lapa_core.vla.base import Head, Inputs
from lapa_core.vla.chunk import INIT_STD
from lapa_core.vla.decode.protocol import KvStore, Prompt
from lapa_core.vla.history import HISTORY
from lapa_core.vla.lwm.config import LwmConfig
from lapa_core.vla.lwm.layers import LwmLayer, LwmNorm
from lapa_core.vla.lwm.prompt import corpus, opening, prompts
from lapa_core.vla.lwm.rope import rotary_table
from lapa_core.vla.lwm.text_loss import tail_logits
from lapa_core.vla.lwm.tokenizer import SentencePieceText
from lapa_core.vla.lwm.vqgan import Vqgan
from lapa_core.vla.sequence import SequenceVla

_PROMPTS_KEPT = 64
"""Batches of instructions whose ids are kept on the device."""


class LwmVla(SequenceVla):
    """A `SequenceModel` (`lapa_core.vla.decode.protocol`) over Llama layers."""

    text_type = SentencePieceText
    config: LwmConfig
    text: SentencePieceText | None
    full_prefix = False

    def __init__(self, config: LwmConfig, text: SentencePieceText | None):
        """Build it with fresh weights and without latent and action heads.

        Raises:
            CheckpointError: the tokenizer has more pieces than the model has text ids.
        """
        super().__init__(config, text)
        if text is not None and len(text) > config.vocab:
            raise CheckpointError(
                f"the tokenizer has {len(text)} pieces, the model {config.vocab} text ids; they do not belong together"
            )
        self.tables, self.heads = nn.ModuleDict(), nn.ModuleDict()
        self._add_space("text", config.vocab)
        self._add_space("vision", config.vision_vocab)
        self.layers = nn.ModuleList(LwmLayer(config, i) for i in range(config.layers))
        self.norm = LwmNorm(config.hidden, config.rms_eps)
        self.vqgan = Vqgan(config.vqgan)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
        for unused in ("text", "vision"):
            self.heads[unused].requires_grad_(False)
        self._kept: dict[tuple[object, ...], Inputs] = {}

    @classmethod
    def start(cls, config: LwmConfig, instructions: Iterable[str]) -> LwmVla:
        """Return a fresh model with a tokenizer fitted to these instructions.

        A run that shall start from LWM-Chat-1M or LAPA-7B starts from what `lapa vla import-release` makes of them.
        """
        return cls(config, SentencePieceText.fit(corpus(sorted(set(instructions))), config.vocab))

    def prepare(
        self,
        image_BCHW: Tensor,
        instructions: Sequence[str],
        extra: Mapping[str, Tensor] | None = None,
    ) -> Inputs:
        """Return the ids of prompt, frame and opening tags; in evaluation mode always of one width.

        Raises:
            ContractError: something else than earlier codes is given beside one image and an instruction.
            DataError: an instruction that is too long; codes of earlier frames that are missing or of another shape.
        """
        told, others = self.take_history(len(instructions), extra)
        if others:
            raise ContractError(
                f"{sorted(others)} are given, but the {self.config.KIND} model takes one image and an instruction"
            )
        ids_BV = self.vqgan.ids(image_BCHW)
        end_B1 = torch.full_like(ids_BV[:, :1], self.config.end_of_vision)
        said = self._said(tuple(instructions), image_BCHW.device)
        return {**said, **told, "vision": torch.cat([ids_BV, end_B1], dim=1)}

    def _said(self, instructions: tuple[str, ...], device: torch.device) -> Inputs:
        """Return the text inputs; the same tensors for the same instructions (see `Prompt.key`)."""
        key = (instructions, device, self.training)
        if key not in self._kept:
            if len(self._kept) == _PROMPTS_KEPT:
                self._kept.pop(next(iter(self._kept)))
            with torch.inference_mode(False):  # they may meet a gradient later
                said = self._say(instructions)
                self._kept[key] = {name: ids.to(device) for name, ids in said.items()}
        return self._kept[key]

    def _say(self, instructions: tuple[str, ...]) -> Inputs:
        text = self._need_text()
        padded = prompts(text, instructions, self.config.max_text, fixed=not self.training)
        said = {"text": torch.from_numpy(padded.ids_BT), "seen": torch.from_numpy(padded.seen_BT)}
        heads: tuple[Head, ...] = ("latent", "action")
        for head in heads:
            row = torch.tensor(opening(text, head))
            said[f"open_{head}"] = row.expand(len(instructions), -1)
        return said

    def _need_text(self) -> SentencePieceText:
        if self.text is None:
            raise CheckpointError("this model was made without a tokenizer, to be counted only")
        return self.text

    def prefix_embeddings(self, inputs: Inputs, head: Head) -> Tensor:
        """Return (B, L, D): prompt, frame, codes of earlier frames, opening tags."""
        parts = [
            self.embed_space("text", inputs["text"]),
            self.embed_space("vision", inputs["vision"]),
            self.embed_space("text", inputs[f"open_{head}"]),
        ]
        if self.earlier is not None:
            parts.insert(2, self.earlier(inputs[HISTORY]).to(self.compute))
        return torch.cat(parts, dim=1)

    def positions(self, inputs: Inputs, head: Head) -> Tensor:
        """Return (B, L): the count of tokens before, padding not counted."""
        return (self.visible(inputs, head).cumsum(dim=1) - 1).clamp(min=0)

    def visible(self, inputs: Inputs, head: Head) -> Tensor:
        """Return (B, L), false at padding."""
        behind = inputs["vision"].shape[1] + inputs[f"open_{head}"].shape[1] + self.earlier_places
        return F.pad(inputs["seen"], (0, behind), value=True)

    def prompt(self, inputs: Inputs, head: Head) -> Prompt:
        """Return the text up to the frame."""
        return Prompt(inputs["text"], inputs["text"].shape[1])

    def queries(self, head: Head) -> None:
        """Return none: one token after another."""
        return None

    @property
    def compute(self) -> torch.dtype:
        """The type that linear layers compute in: the weights'; over float32 ones autocast's or the configuration's."""
        weight, device = self.norm.weight.dtype, self.device.type
        if weight != torch.float32:
            return weight
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        own: torch.dtype = getattr(torch, self.config.dtype)
        return own

    def _computing(self) -> AbstractContextManager[object]:
        dtype = self.compute
        if dtype == self.norm.weight.dtype:
            # float32 adapters beside weights of this type obey the training's autocast
            return nullcontext()
        return torch.autocast(self.device.type, dtype=dtype)

    def backbone(
        self,
        embeddings_BQD: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        cache: KvStore | None,
    ) -> Tensor:
        """Return the normalised last hidden states (B, Q, D); see `SequenceModel`.

        With `residual_fp32` the stream of more than one position is float32; a single one, as in decoding, keeps the
        type of its embedding, both as in the release.
        """
        config = self.config
        table = rotary_table(
            positions, config.head_dim, config.rope_theta, rounded=config.rope_bf16
        )
        wide = config.residual_fp32 and embeddings_BQD.shape[1] > 1
        with self._computing():
            x_BQD = embeddings_BQD.float() if wide else embeddings_BQD
            for layer in self.layers:
                x_BQD = layer(x_BQD, table, mask, cache)
            normed_BQD: Tensor = self.norm(x_BQD)
            return normed_BQD

    def embed(self, head: Head, ids_B: Tensor, k: int) -> Tensor:
        """Return the input embeddings (B, D) of chosen ids; the same table at every place."""
        return self.embed_space(head, ids_B)

    def embed_space(self, space: str, ids: Tensor) -> Tensor:
        """Return the input embeddings (..., D) of ids of one kind, in the type that is computed in."""
        embedding: Tensor = self.tables[space](ids)
        return embedding.to(self.compute)

    def logits(self, head: Head, hidden_BD: Tensor, k: int) -> Tensor:
        """Return (B, N) float32; bins that dimension k has not are -inf."""
        if head == "latent":
            return self.head_logits("latent", hidden_BD)
        counts = self.need_bins().counts
        logits_BN = self.head_logits("action", self.dropout(hidden_BD))[..., : int(counts.max())]
        there_N = torch.arange(logits_BN.shape[-1], device=logits_BN.device) < int(counts[k])
        return logits_BN.masked_fill(~there_N, -torch.inf)

    def head_logits(self, space: str, hidden: Tensor) -> Tensor:
        """Return (..., N) float32 of one head, unmasked."""
        with self._computing():
            logits: Tensor = self.heads[space](hidden)
        return logits.float()

    def learn_text(self) -> None:
        """Let the text head learn."""
        self.heads["text"].requires_grad_(True)

    def latent_and_text(self, inputs: Inputs, codes_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Return `latent_logits` and the release's text loss, from one forward."""
        self.need_latent()
        tail = tail_logits(self, self._need_text(), inputs, codes_BK)
        loss = F.cross_entropy(tail.text_BSN.flatten(0, 1), tail.text_BS.flatten())
        return tail.latent_BKN, loss

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.config.hidden

    def _add_space(self, space: str, ids: int) -> None:
        """Add an embedding table and a head, where and of what type the others are."""
        for modules, made in (
            (self.tables, nn.Embedding(ids, self.config.hidden)),
            (self.heads, nn.Linear(self.config.hidden, ids, bias=False)),
        ):
            nn.init.normal_(made.weight, std=INIT_STD)
            there = next(iter(modules.parameters()), made.weight)
            modules[space] = made.to(there.device, there.dtype)

    def _drop_space(self, space: str) -> None:
        for modules in (self.tables, self.heads):
            if space in modules:
                del modules[space]

    def give_latent_head(self, tokens: int, codes: int) -> None:
        """Add a fresh latent table and head."""
        self.latent = (tokens, codes)
        self._add_space("latent", codes)

    def give_action_head(self, bins: ActionBins) -> None:
        """Add a fresh action table and head with `action_vocab` rows.

        Raises:
            ContractError: a dimension has more bins.
        """
        if (most := int(bins.counts.max())) > self.config.action_vocab:
            raise ContractError(
                f"a dimension has {most} bins, action_vocab is {self.config.action_vocab}; fit fewer bins"
            )
        self.bins = bins
        self._add_space("action", self.config.action_vocab)

    def drop_latent_head(self) -> None:
        """Take the latent table and head off."""
        self.latent = None
        self._drop_space("latent")

    def drop_action_head(self) -> None:
        """Take the action table and head off."""
        self.bins = None
        self._drop_space("action")

    def action_parameters(self) -> list[nn.Parameter]:
        """Return the action table and head."""
        self.need_bins()
        return [*self.tables["action"].parameters(), *self.heads["action"].parameters()]

    def vision_parameters(self) -> list[nn.Parameter]:
        """Return none: what the paper freezes of this model is the VQGAN, which has no gradients."""
        return []

    def blocks(self) -> list[nn.Module]:
        """Return the decoder layers."""
        return list(self.layers)
