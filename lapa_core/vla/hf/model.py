# SPDX-License-Identifier: Apache-2.0
"""A vision-language model of `transformers` as a policy: prompt with images, then latent codes or action bins.

The network is the family's own, without its text head. What is ours is the sequence that it reads: image features,
text embeddings and the state in the places of the prompt's ids, and behind them the tokens of a head.

Shapes: B sequences, L prefix positions, C cameras, N images (B * C), P tokens of one image, Q queries, D width,
K tokens of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.vla.base import Head, Inputs
from lapa_core.vla.chunk import INIT_STD
from lapa_core.vla.decode.protocol import KvStore, Prompt
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.hf.families import family_of
from lapa_core.vla.hf.heads import TokenHead
from lapa_core.vla.hf.text import (
    EARLIER_ID,
    STATE_ID,
    HfText,
    located,
    read_backbone_config,
    readable,
)
from lapa_core.vla.history import HISTORY
from lapa_core.vla.sequence import SequenceVla

_ATTENTION = "sdpa"
"""The one implementation that takes masks of any form and is fused where it can be."""

_STEP = 16
"""Prompts are padded to multiples of this, so that few lengths occur."""


class HfVla(SequenceVla):
    """A `SequenceModel` over a backbone of `transformers`."""

    text_type = HfText
    new_parts = ("state.",)
    config: HfConfig
    text: HfText | None

    def __init__(self, config: HfConfig, text: HfText | None, network: Any = None):
        """Build the architecture that `text` describes; without it, the one that `config.model` names.

        Args:
            config: what it sees and how it decodes.
            text: tokenizer and architecture; none for a model that is only counted.
            network: a network with weights; none makes a fresh one.

        Raises:
            ContractError: the vision tower does not take frames of `config.image_px`.
            CheckpointError: the backbone cannot be read or is of no known family.
        """
        super().__init__(config, text)
        backbone = read_backbone_config(config.model) if text is None else text.backbone
        self.family = family_of(backbone)
        self._side = self.family.side_tokens(config.image_px)
        self.network = _fresh(backbone) if network is None else network
        self.full_prefix = self.family.full_prefix
        self.latent_head: TokenHead | None = None
        self.action_head: TokenHead | None = None
        self.state = nn.Linear(config.state_dim, self.width) if config.proprioception else None
        if self.state is not None:
            nn.init.normal_(self.state.weight, std=INIT_STD)
        if config.freeze_vision:
            for parameter in self.vision_parameters():
                parameter.requires_grad_(False)

    @classmethod
    def start(cls, config: HfConfig, instructions: Iterable[str]) -> HfVla:
        """Return a model with the pretrained weights of `config.model`, in float32.

        Raises:
            CheckpointError: the backbone cannot be read, or weights of it are missing.
        """
        text, folder = HfText.fetch(config.model), located(config.model)
        make: Any = AutoModelForImageTextToText.from_pretrained
        with readable(folder):
            whole, found = make(
                folder,
                dtype=torch.float32,
                attn_implementation=_ATTENTION,
                output_loading_info=True,
            )
        if missing := sorted(name for name in found["missing_keys"] if "lm_head" not in name):
            raise CheckpointError(
                f"{config.model!r} lacks {len(missing)} weights of its architecture, {missing[0]} among them; "
                "random ones in their place would spoil the rest. Fetch it again"
            )
        return cls(config, text, whole.model)

    def prepare(
        self,
        image_BCHW: Tensor,
        instructions: Sequence[str],
        extra: Mapping[str, Tensor] | None = None,
    ) -> Inputs:
        """Normalise the images and lay out the prompts, padded on the left.

        Raises:
            ContractError: codes of earlier frames for a model that reads none.
            DataError: a camera, the state or the codes of earlier frames are missing, of the wrong shape, or none that
                the model takes; an instruction that cannot be asked.
        """
        text, config = self._need_text(), self.config
        told, others = self.take_history(len(instructions), extra)
        taken = [*config.cameras[1:], *(["state"] if config.proprioception else [])]
        if surplus := sorted(set(others) - set(taken)):
            raise DataError(f"this model makes no use of {surplus}; it takes {taken}")
        given = {**others, config.cameras[0]: image_BCHW}
        shape = (len(instructions), 3, config.image_px, config.image_px)
        frames = [_pick(given, name, shape) for name in config.cameras]
        rows = [
            text.encode(instruction, config, self.earlier_places) for instruction in instructions
        ]
        length = -(-max(map(len, rows)) // _STEP) * _STEP
        ids_BL = torch.tensor([(0,) * (length - len(row)) + row for row in rows])
        lengths_B1 = torch.tensor([[len(row)] for row in rows])
        visible_BL = torch.arange(length) >= length - lengths_B1
        places = {
            "ids": ids_BL,
            "visible": visible_BL,
            "positions": self.family.positions(ids_BL, visible_BL, self._side),
        }
        inputs = {name: part.to(image_BCHW.device) for name, part in {**places, **told}.items()}
        inputs["pixels"] = torch.stack([text.images(frame) for frame in frames], dim=1)
        if config.proprioception:
            inputs["state"] = _pick(given, "state", (len(rows), config.state_dim))
        return inputs

    def read(self, inputs: Inputs) -> Inputs:
        """Run the vision tower, so that several heads share its features."""
        if "features" in inputs:
            return inputs
        rest = {name: part for name, part in inputs.items() if name != "pixels"}
        pixels_NCHW = inputs["pixels"].flatten(0, 1)
        features_NPD = self.family.features(self.network, pixels_NCHW)
        images = len(self.config.cameras)
        return {**rest, "features": features_NPD.unflatten(0, (-1, images)).flatten(1, 2)}

    @property
    def language(self) -> Any:
        """The language model inside the network."""
        return self.family.language(self.network)

    @property
    def width(self) -> int:
        """As `VlaModel`."""
        return int(self.language.config.hidden_size)

    def give_latent_head(self, tokens: int, codes: int) -> None:
        """As `VlaModel`."""
        self.latent = (tokens, codes)
        self.latent_head = self._make_head(torch.ones(tokens, codes, dtype=torch.bool))

    def give_action_head(self, bins: ActionBins) -> None:
        """As `VlaModel`."""
        self.bins = bins
        self.action_head = self._make_head(torch.from_numpy(bins.mask))

    def give_history(self, most: int) -> None:
        """As `VlaModel`.

        Raises:
            ContractError: the prompt becomes longer than the backbone sees.
        """
        super().give_history(most)
        self._check_length(self.need_latent()[0])

    @property
    def prompt_form(self) -> tuple[int, float]:
        """As `VlaModel`."""
        embeddings = self.language.get_input_embeddings()
        return self.width, float(getattr(embeddings, "scalar_embed_scale", 1.0))

    def drop_latent_head(self) -> None:
        """As `VlaModel`."""
        self.latent, self.latent_head = None, None

    def drop_action_head(self) -> None:
        """As `VlaModel`."""
        self.bins, self.action_head = None, None

    def action_parameters(self) -> list[nn.Parameter]:
        """As `VlaModel`."""
        return [] if self.action_head is None else list(self.action_head.parameters())

    def vision_parameters(self) -> list[nn.Parameter]:
        """As `VlaModel`: the tower and its projector."""
        parts = self.family.vision_parts(self.network)
        return [parameter for part in parts for parameter in part.parameters()]

    def blocks(self) -> list[nn.Module]:
        """As `VlaModel`: the layers of the language model, and of a vision tower that learns."""
        vision = [] if self.config.freeze_vision else self.family.vision_blocks(self.network)
        return [*vision, *self.language.layers]

    def prefix_embeddings(self, inputs: Inputs, head: Head) -> Tensor:
        """As `SequenceModel`; the prompt is the same for both heads."""
        ids_BL = inputs["ids"]
        image_BL = ids_BL == self.family.image_id
        text_BL = ids_BL.masked_fill(image_BL | (ids_BL < 0), 0)
        embeddings_BLD: Tensor = self.language.get_input_embeddings()(text_BL)
        features_BPD = self.read(inputs)["features"].to(embeddings_BLD.dtype)
        embeddings_BLD = embeddings_BLD.masked_scatter(image_BL[..., None], features_BPD)
        if self.earlier is not None:
            codes_BPD = self.earlier(inputs[HISTORY]).to(embeddings_BLD.dtype)
            place_BL1 = (ids_BL == EARLIER_ID)[..., None]
            embeddings_BLD = embeddings_BLD.masked_scatter(place_BL1, codes_BPD)
        if self.state is not None:
            state_BD = self.state(inputs["state"].to(self.state.weight.dtype))
            place_BL1 = (ids_BL == STATE_ID)[..., None]
            embeddings_BLD = torch.where(place_BL1, state_BD[:, None], embeddings_BLD)
        return embeddings_BLD

    def positions(self, inputs: Inputs, head: Head) -> Tensor:
        """As `SequenceModel`."""
        positions = inputs["positions"]
        return positions if positions.ndim == 2 else positions.movedim(1, 0)

    def visible(self, inputs: Inputs, head: Head) -> Tensor:
        """As `SequenceModel`."""
        return inputs["visible"]

    def prompt(self, inputs: Inputs, head: Head) -> Prompt | None:
        """As `SequenceModel`: images come first in these families' prompts, and so nothing stays."""
        return None

    def queries(self, head: Head) -> Tensor | None:
        """As `SequenceModel`."""
        return self._head(head).queries()

    def backbone(
        self, embeddings_BQD: Tensor, positions: Tensor, mask: Tensor | None, cache: KvStore | None
    ) -> Tensor:
        """As `SequenceModel`."""
        hidden_BQD: Tensor = self.language(
            inputs_embeds=embeddings_BQD,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return hidden_BQD

    def embed(self, head: Head, ids_B: Tensor, k: int) -> Tensor:
        """As `SequenceModel`."""
        return self._head(head).embed(ids_B)

    def logits(self, head: Head, hidden_BD: Tensor, k: int) -> Tensor:
        """As `SequenceModel`."""
        hidden_BD = self.dropout(hidden_BD) if head == "action" else hidden_BD
        return self._head(head).logits(hidden_BD, k)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HfVla:
        """As `nn.Module`, but the network's buffers keep their type: wave lengths in bfloat16 turn positions wrong."""
        exact = dict(self.network.named_buffers())
        super()._apply(fn, recurse)
        for name, part in self.network.named_buffers():
            if part.dtype != exact[name].dtype:
                owner, _, own = name.rpartition(".")
                setattr(self.network.get_submodule(owner), own, exact[name].to(part.device))
        return self

    def _head(self, head: Head) -> TokenHead:
        found = self.latent_head if head == "latent" else self.action_head
        if found is None:
            raise CheckpointError(f"this model has no {head} head")
        return found

    def _make_head(self, mask_KN: Tensor) -> TokenHead:
        self._check_length(mask_KN.shape[0])
        width, scale = self.prompt_form
        parallel = self.config.decoding == "parallel"
        return TokenHead(width, mask_KN, parallel=parallel, scale=scale).to(self.device)

    def _check_length(self, tokens: int) -> None:
        config, language = self.config, self.language.config
        longest = self._side**2 * len(config.cameras) + config.max_text + config.proprioception
        longest += self.earlier_places
        longest = -(-longest // _STEP) * _STEP + tokens
        windows = [language.max_position_embeddings, getattr(language, "sliding_window", None)]
        if longest > (most := min(window for window in windows if window)):
            raise ContractError(
                f"{len(config.cameras)} frames of {self._side**2} tokens, {config.max_text} of text and {tokens} of "
                f"the answer make {longest} positions; this backbone sees {most}. Use fewer cameras or smaller frames"
            )

    def _need_text(self) -> HfText:
        if self.text is None:
            raise CheckpointError("this model was made to be counted; it has no tokenizer to run")
        return self.text


def _fresh(backbone: Any) -> Any:
    """Return the network of a configuration with fresh float32 weights, without its text head."""
    whole = AutoModelForImageTextToText.from_config(
        backbone, dtype=torch.float32, attn_implementation=_ATTENTION
    )
    return whole.model


def _pick(given: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """Return one input of a batch, checked."""
    if name not in given:
        raise DataError(f"the model takes {name!r}, which is missing; given are {sorted(given)}")
    if (found := tuple(given[name].shape)) != shape:
        raise DataError(f"{name} has shape {found}; this model takes {shape}")
    return given[name]
