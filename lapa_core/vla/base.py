# SPDX-License-Identifier: Apache-2.0
"""The one interface of all policy models: a frame and an instruction in, latent codes or action bins out.

Training, checkpoints, the engine and the benches know a model by what is here alone. A family of models is a
configuration (it imports no torch) and a subclass of `VlaModel`, named in `FAMILIES` and imported when it is used.

Shapes: B frames, K latent tokens, N codes, M earlier frames whose codes are read, A action dimensions (7), Q bins of
the largest dimension, F features, H actions of a chunk.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.train.augment import ALONE
from lapa_core.train.sampling import Part
from lapa_core.vla.chunk import ChunkHead
from lapa_core.vla.config import ModelConfig
from lapa_core.vla.decode.choose import Choose
from lapa_core.vla.earlier import EarlierCodes
from lapa_core.vla.history import HISTORY
from lapa_core.vla.text import TextSide

__all__ = [
    "FAMILIES", "Choose", "Head", "Inputs", "TextSide", "VlaModel", "make_model", "model_class",
]  # fmt: skip

Inputs = dict[str, Tensor]
"""What one model's forward needs, batch first, on the model's device."""

Head = Literal["latent", "action"]
"""Which of the two token heads."""

FAMILIES = {
    "film": "lapa_core.vla.small:SmallVla",
    "lwm": "lapa_core.vla.lwm.model:LwmVla",
    "hf": "lapa_core.vla.hf.model:HfVla",
}
"""KIND of a configuration -> its model."""


class VlaModel(nn.Module, ABC):
    """A policy model. It is made without heads; a stage gives it the ones that it trains."""

    text_type: ClassVar[type[TextSide]]
    """What its `text` is, for loading."""
    large: ClassVar[bool] = True
    """Whether loading skips the random weights that a fresh backbone would get."""
    new_parts: ClassVar[tuple[str, ...]] = ()
    """Prefixes of parameters that no backbone brings weights for; beside the heads, adapters leave these to learn."""
    config: ModelConfig
    """Rebuilds the architecture; has `image_px` and the class constant `KIND`."""
    text: TextSide | None
    """The text side; None only where the model is counted and never run."""
    latent: tuple[int, int] | None
    """(tokens K, codes N) of the latent head; None: it has none."""
    bins: ActionBins | None
    """Bins of the action head; None: it has none."""
    dropout: nn.Dropout
    """Of the features that the action and the chunk head read; the training loop sets its share `p`."""
    chunk_head: ChunkHead | None
    """Continuous head; None: it has none."""
    earlier: EarlierCodes | None
    """Vectors of the codes of earlier frames; None: the prompt has none."""

    def __init__(self, config: ModelConfig, text: TextSide | None):
        """Keep what every model has; a subclass takes the same arguments and builds the rest."""
        super().__init__()
        self.config, self.text = config, text
        self.latent, self.bins = None, None
        self.dropout = nn.Dropout(0.0)
        self.chunk_head = None
        self.earlier = None

    @classmethod
    @abstractmethod
    def start(cls, config: Any, instructions: Iterable[str]) -> VlaModel:
        """Return a model without heads to train from: with the backbone's own pretrained weights where it has some.

        Args:
            config: of this family.
            instructions: of the data set, for a word list that is fitted to it.
        """

    @abstractmethod
    def prepare(
        self,
        image_BCHW: Tensor,
        instructions: Sequence[str],
        extra: Mapping[str, Tensor] | None = None,
    ) -> Inputs:
        """Tokenise what needs it and return the forward's inputs; no gradient is needed through this.

        Args:
            image_BCHW: float in [0, 1] at `config.image_px`, on the model's device.
            instructions: one per image.
            extra: further cameras (B, C, H, W) and proprioception (B, S) by name, for models that take them; `history`
                (B, M, K), the codes of earlier frames, for one that reads them.
        """

    def take_history(
        self, batch: int, extra: Mapping[str, Tensor] | None
    ) -> tuple[Inputs, dict[str, Tensor]]:
        """Divide the extra inputs into the codes of earlier frames, if the model reads them, and the others.

        Raises:
            ContractError: the model reads none.
            DataError: they are missing or of another shape.
        """
        others = dict(extra or {})
        codes_BMK = others.pop(HISTORY, None)
        if self.earlier is None:
            if codes_BMK is not None:
                raise ContractError(
                    "codes of earlier frames are given, but this model was trained without; train with --history"
                )
            return {}, others
        shape = (batch, *self.earlier.shape)
        if codes_BMK is None or tuple(codes_BMK.shape) != shape:
            found = "missing" if codes_BMK is None else f"of shape {tuple(codes_BMK.shape)}"
            raise DataError(
                f"the codes of earlier frames are {found}; this model reads {shape} (frames, earlier frames, tokens)"
            )
        return {HISTORY: codes_BMK}, others

    def read(self, inputs: Inputs) -> Inputs:
        """Compute once what all heads share, and return inputs that hold it; the same where nothing is shared."""
        return inputs

    def forget_words(self, inputs: Inputs, share: float, part: Part = ALONE) -> Inputs:
        """Replace a random share of the words by "unknown", so that new words do little harm later.

        Args:
            inputs: of `prepare`.
            share: of the words; 0 replaces none.
            part: which part of a joint batch the inputs are.

        Raises:
            ContractError: this model's text has no unknown word.
        """
        if share:
            raise ContractError(
                f"unknown_word_share is {share}, but a {self.config.KIND} model has no unknown word; set it to 0"
            )
        return inputs

    @abstractmethod
    def latent_logits(self, inputs: Inputs, codes_BK: Tensor) -> Tensor:
        """Return (B, K, N), teacher forced: position k sees the codes before it only.

        Raises:
            CheckpointError: the model has no latent head.
        """

    def learn_text(self) -> None:
        """Let the model's text head learn with the codes (`latent_and_text`).

        Raises:
            ContractError: the model has no text head that is trained.
        """
        raise self._learns_no_text()

    def latent_and_text(self, inputs: Inputs, codes_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Return `latent_logits` and a loss of the text behind the frame; only after `learn_text`.

        Raises:
            ContractError: as `learn_text`.
        """
        raise self._learns_no_text()

    def _learns_no_text(self) -> ContractError:
        return ContractError(
            f"text_weight is for LWM; a {self.config.KIND} model learns no text here: set it to 0"
        )

    @abstractmethod
    def action_logits(self, inputs: Inputs, bins_BA: Tensor) -> Tensor:
        """Return (B, A, Q), teacher forced; bins that a dimension has not are -inf.

        Raises:
            CheckpointError: the model has no action head.
        """

    @abstractmethod
    def decode(self, inputs: Inputs, head: Head, choose: Choose) -> Tensor:
        """Return the chosen ids, (B, K) or (B, A), int64; never an end of sequence, never a bin that is not there."""

    @property
    @abstractmethod
    def width(self) -> int:
        """F, the width of `summary`."""

    @abstractmethod
    def summary(self, inputs: Inputs) -> Tensor:
        """Return (B, F), what a continuous head reads: the state from which the first token would be predicted."""

    def chunk_actions(self, inputs: Inputs) -> Tensor:
        """Return (B, H, A) actions [m, rad, opening] of the continuous head.

        Raises:
            CheckpointError: the model has no continuous head.
        """
        if self.chunk_head is None:
            raise CheckpointError(
                "this model has no continuous head; `lapa vla finetune --continuous` makes one that has"
            )
        features_BF: Tensor = self.dropout(self.summary(inputs))
        actions_BHA: Tensor = self.chunk_head(features_BF)
        return actions_BHA

    @abstractmethod
    def give_latent_head(self, tokens: int, codes: int) -> None:
        """Add a fresh latent head (and embeddings) on the model's device; an older one is replaced."""

    @abstractmethod
    def give_action_head(self, bins: ActionBins) -> None:
        """Add a fresh action head (and embeddings) on the model's device; the latent head stays as it is."""

    def give_chunk_head(
        self, mean_A: Sequence[float], spread_A: Sequence[float], steps: int
    ) -> None:
        """Add a fresh continuous head on the model's device: `steps` actions, scaled by these statistics."""
        device = next(self.parameters()).device
        self.chunk_head = ChunkHead(self.width, mean_A, spread_A, steps).to(device)

    def give_history(self, most: int) -> None:
        """Let the prompt hold the codes of the `most` frames before, as the latent head names them: fresh vectors.

        Raises:
            CheckpointError: the model has no latent head.
        """
        self.earlier = EarlierCodes(most, *self.need_latent(), *self.prompt_form).to(self.device)

    @property
    def earlier_places(self) -> int:
        """Places in the prompt that codes of earlier frames take."""
        return 0 if self.earlier is None else self.earlier.places

    @property
    def prompt_form(self) -> tuple[int, float]:
        """Width of the vectors in the prompt, and what a fresh table's are scaled by."""
        return self.width, 1.0

    @abstractmethod
    def drop_latent_head(self) -> None:
        """Take the latent head (and embeddings) off, if there is one."""

    @abstractmethod
    def drop_action_head(self) -> None:
        """Take the action head (and embeddings) off, if there is one."""

    @abstractmethod
    def action_parameters(self) -> list[nn.Parameter]:
        """Return what belongs to the action head alone; the first steps of finetuning train nothing else."""

    @abstractmethod
    def vision_parameters(self) -> list[nn.Parameter]:
        """Return what finetuning freezes: the vision stem or tower; a tokenizer without gradients is none of it."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the units that FSDP2 divides and activation checkpointing recomputes; none for a small model."""

    def need_latent(self) -> tuple[int, int]:
        """Return (tokens, codes) of the latent head.

        Raises:
            CheckpointError: the model has none.
        """
        if self.latent is None:
            raise CheckpointError(
                "this model has no latent head; `lapa vla pretrain` makes one that has"
            )
        return self.latent

    def need_bins(self) -> ActionBins:
        """Return the action head's bins.

        Raises:
            CheckpointError: the model has none.
        """
        if self.bins is None:
            raise CheckpointError(
                "this model has no action head; `lapa vla finetune` makes one that has"
            )
        return self.bins

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


def model_class(kind: str) -> type[VlaModel]:
    """Import and return the model of a family.

    Raises:
        CheckpointError: a kind that is not known.
    """
    if kind not in FAMILIES:
        raise CheckpointError(f"{kind!r} is no kind of policy model; known are {sorted(FAMILIES)}")
    module, name = FAMILIES[kind].split(":")
    found: type[VlaModel] = getattr(importlib.import_module(module), name)
    return found


def make_model(
    config: ModelConfig,
    text: TextSide | None,
    latent: tuple[int, int] | None = None,
    bins: ActionBins | None = None,
) -> VlaModel:
    """Build a model with fresh weights and the heads that are named.

    Args:
        config: its architecture.
        text: its text side; None for a model that is only counted.
        latent: (tokens, codes) of a latent head.
        bins: of an action head.
    """
    model = model_class(config.KIND)(config, text)
    if latent is not None:
        model.give_latent_head(*latent)
    if bins is not None:
        model.give_action_head(bins)
    return model
