# SPDX-License-Identifier: Apache-2.0
"""Decodes sequences at fixed shapes, on a GPU from a CUDA graph; the caller copies the answer to the host, once.

An action of a 7B model is one pass over the prefix and six or three over single positions, each of which takes as long
as its weights take to be read, or, launched kernel by kernel, as Python takes to launch it. So on a GPU the whole
answer (prefix, steps, choices) is recorded once per shape and replayed. The part of the prefix that stays from frame
to frame (the instruction, see `Prompt`) is computed when it changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lapa_core.errors import CheckpointError
from lapa_core.vla.decode.choose import Choose, Sample, greedy
from lapa_core.vla.decode.plan import Backbone, Plan, Prefix, round_up
from lapa_core.vla.decode.protocol import SequenceModel
from lapa_core.vla.decode.recorded import Recorded
from lapa_core.vla.decode.weights import WeightsMark

if TYPE_CHECKING:
    from lapa_core.vla.base import Head, Inputs

_PLANS = 8
"""Shapes and choosers whose buffers are kept; a 7B model's take 0.2 GB per sequence."""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """What may be done for speed. None of it changes what is computed, except for rounding."""

    graphs: bool = True
    """Record CUDA graphs, where the model is on a GPU and the chooser is `greedy` or a `Sample`."""
    compile: bool = False
    """Compile the passes of an answer to one frame with torch.compile: fewer, fused kernels after some minutes at the
    start. Batches, of which each size would take its own minutes, stay as they are."""


class _Kept:
    """What stays from one call to the next at one shape."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.prompt: Tensor | None = None
        """Key of the prompt whose keys and values the plan holds."""
        self.recorded: Recorded | None = None


class Decoder:
    """Decodes for one model. Not thread-safe."""

    def __init__(self, options: DecodeOptions | None = None):
        """Take the options; nothing is allocated before the first call."""
        self._options = options or DecodeOptions()
        self._kept: OrderedDict[object, _Kept] = OrderedDict()
        self._weights: WeightsMark | None = None
        self._backbone: Backbone | None = None

    @torch.inference_mode(False)  # buffers made in that mode could not be written to outside it
    @torch.no_grad()
    def decode(self, model: SequenceModel, inputs: Inputs, head: Head, choose: Choose) -> Tensor:
        """Return the ids (B, K) int64 on the model's device, without waiting for it.

        Raises:
            CheckpointError: the model has no such head.
        """
        tokens = head_tokens(model, head)
        self._forget_what_is_old(model)
        prefix = _prefix_of(model, inputs, head)
        batch = len(prefix.visible_BL)
        prompt = None if model.full_prefix else model.prompt(inputs, head)
        recordable = (
            self._options.graphs
            and prefix.embeddings_BLD.is_cuda
            and (choose is greedy or isinstance(choose, Sample))
        )
        if recordable:
            prefix = round_up(prefix)
        length = 0 if prompt is None else prompt.length
        key = (head, tokens, length, choose if recordable else None, *map(_form, prefix))
        kept = self._kept_for(key, lambda: Plan(prefix, head, tokens, length))
        kept.plan.fill(prefix)
        if prompt is not None and prompt.key is not kept.prompt:
            kept.plan.read_prompt(model)
            kept.prompt = prompt.key
        backbone = self._backbone_of(model) if batch == 1 else type(model).backbone
        if recordable and kept.recorded is None:
            generator = choose.generator if isinstance(choose, Sample) else None
            kept.recorded = Recorded(
                lambda: kept.plan.answer(model, choose, backbone),
                prefix.embeddings_BLD.device,
                generator,
            )
        if kept.recorded is None:
            kept.plan.answer(model, choose, backbone)
        else:
            kept.recorded.replay()
        return kept.plan.ids_BK[:batch].clone()

    def _forget_what_is_old(self, model: SequenceModel) -> None:
        """Drop graphs and prompts of weights that have changed, moved or been replaced."""
        assert isinstance(model, nn.Module), type(model)
        if self._weights is None or not self._weights.holds():
            self._kept.clear()
            self._weights = WeightsMark(model)

    def _kept_for(self, key: object, make: Callable[[], Plan]) -> _Kept:
        if key not in self._kept:
            if len(self._kept) == _PLANS:
                self._kept.popitem(last=False)
            self._kept[key] = _Kept(make())
        self._kept.move_to_end(key)
        return self._kept[key]

    def _backbone_of(self, model: SequenceModel) -> Backbone:
        """Return the pass over some positions, compiled if the options say so."""
        if self._backbone is None:
            own = type(model).backbone
            self._backbone = torch.compile(own, dynamic=False) if self._options.compile else own
        return self._backbone


def head_tokens(model: SequenceModel, head: Head) -> int:
    """Return K, how many tokens a head answers with.

    Raises:
        CheckpointError: the model has no such head.
    """
    if head == "latent" and model.latent is not None:
        return model.latent[0]
    if head == "action" and model.bins is not None:
        return len(model.bins.centres)
    raise CheckpointError(
        f"this model has no {head} head; `lapa vla {'pretrain' if head == 'latent' else 'finetune'}` makes one that has"
    )


def _prefix_of(model: SequenceModel, inputs: Inputs, head: Head) -> Prefix:
    embeddings_BLD = model.prefix_embeddings(inputs, head)
    visible_BL = model.visible(inputs, head)
    if visible_BL is None:
        visible_BL = embeddings_BLD.new_ones(embeddings_BLD.shape[:2], dtype=torch.bool)
    return Prefix(embeddings_BLD, model.positions(inputs, head), visible_BL)


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device


_DECODERS: WeakKeyDictionary[nn.Module, Decoder] = WeakKeyDictionary()
"""The decoder of each model that has decoded; none of them keeps its model alive."""


def use_options(model: nn.Module, options: DecodeOptions) -> None:
    """Let a model decode with these options from now on."""
    _DECODERS[model] = Decoder(options)


def decode_sequence(model: SequenceModel, inputs: Inputs, head: Head, choose: Choose) -> Tensor:
    """Return the chosen ids (B, K) int64, on the model's device; see `Decoder`.

    Keep the chooser from call to call (two that are equal count as one): each has its own CUDA graph.

    Raises:
        CheckpointError: the model has no such head.
    """
    assert isinstance(model, nn.Module), type(model)
    decoder = _DECODERS.setdefault(model, Decoder())
    return decoder.decode(model, inputs, head, choose)
