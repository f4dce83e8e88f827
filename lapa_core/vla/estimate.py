# SPDX-License-Identifier: Apache-2.0
"""What a training run would take, computed before anything is allocated: parameters, memory per process, FLOPs.

One step of the real model runs on torch's meta device, where tensors have shapes and no memory: its multiplications
are counted, and so are the bytes that autograd keeps for the backward pass. There attention is not fused and keeps its
matrix, so activations are an upper bound. Not counted: CUDA's own context, fragmentation, the temporary tensors inside
one operation, and what encodes frames (the VQGAN, the vision tower of a `transformers` backbone).

Shapes: B frames of one micro-batch, L positions, K latent tokens, A action dimensions (7).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lapa_core.actions.bins import ActionBins
from lapa_core.train.recompute import recompute
from lapa_core.vla.adapters import adapt
from lapa_core.vla.base import Inputs, VlaModel, model_class
from lapa_core.vla.checkpoint import load_model_config
from lapa_core.vla.config import FinetuneConfig, ModelConfig, PretrainConfig, TrunkConfig
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.history import HISTORY
from lapa_core.vla.loop import settle_history
from lapa_core.vla.words import Vocabulary

LATENT = (4, 8)
"""(tokens, codes) that are assumed of the labels: the paper's."""
NF4_BYTES = 0.516
"""Of one 4-bit weight with its share of the doubly quantised scales (Dettmers et al., 2023): 4.127 bits."""
TAG_TOKENS = 6
"""Of the two tags between frame and answer (facts/lapa.md 2.3)."""
GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes in the memory of one process, by what they are for."""

    weights: int
    """What the process keeps of the weights."""
    gradients: int
    """Of what is trained, float32; twice under DDP, whose buckets hold them again."""
    optimizer: int
    """AdamW's two moments, float32."""
    gathered: int
    """FSDP2: what is trained outside the blocks, two whole blocks, and one block's gradients. Else in bfloat16:
    autocast's copies of what is trained."""
    activations: int
    """What the backward pass of one micro-batch keeps, and of one block what it computes again."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run would take."""

    kind: str
    """Family of the model."""
    parameters: int
    """All of the model's, adapters included."""
    trained: int
    """Those that learn."""
    processes: int
    """That share the batch."""
    parallel: str
    """How they share the model."""
    batch: int
    """Frames per step over all processes."""
    micro_batch: int
    """Frames that a process computes at a time."""
    positions: int
    """Longest sequence [tokens]; 0 for a model that reads none."""
    step_flops: float
    """Of one process in one step, forward, backward and what is computed again."""
    memory: Memory
    """Of one process."""


class _Pass(NamedTuple):
    """Forward and backward of one micro-batch."""

    flops: float
    """Of its multiplications."""
    kept_bytes: int
    """What autograd keeps in between, weights not counted."""


def estimate(config: PretrainConfig | FinetuneConfig) -> Estimate:
    """Compute what a stage would take; where its `init` is not there yet, its `model` gives the sizes."""
    processes = config.processes or int(os.environ.get("WORLD_SIZE", "1"))
    share = -(-config.batch_size // processes)
    micro = min(config.micro_batch or share, share)
    there = config.init is not None and config.init.is_dir()
    sizes = load_model_config(config.init) if config.init and there else config.model
    if isinstance(sizes, HfConfig):
        from lapa_core.vla.hf.text import read_backbone_config

        read_backbone_config(
            sizes.model
        )  # fetched, or made where it is a toy, while there is memory for it
    with torch.device("meta"):
        return _estimate(config, sizes, processes, share, micro)


def _estimate(
    config: PretrainConfig | FinetuneConfig,
    sizes: ModelConfig,
    processes: int,
    share: int,
    micro: int,
) -> Estimate:
    model = _meta_model(config, sizes)
    units = model.blocks()
    memory = _standing(model, config, processes)
    if _casts(model, config):
        model.to(torch.bfloat16)  # the meta device has no autocast
    whole = _one_pass(model, micro)
    passed = whole
    if config.recompute and units:
        recompute(units)
        passed = _one_pass(model, micro)
    inside = (whole.kept_bytes - passed.kept_bytes) // max(len(units), 1)
    return Estimate(
        kind=sizes.KIND,
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        processes=processes,
        parallel=config.parallel,
        batch=config.batch_size,
        micro_batch=micro,
        positions=_positions(_example(model, 1)),
        step_flops=passed.flops * share / micro,
        memory=replace(memory, activations=passed.kept_bytes + inside),
    )


def table(found: Estimate) -> str:
    """Return an estimate as text."""
    memory = found.memory
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "gathered or cast": memory.gathered,
        "activations": memory.activations,
        "together": memory.total,
    }
    reads = f"{found.positions} tokens each" if found.positions else "one vector each"
    lines = [
        "computed on the meta device; nothing was allocated",
        f"model        {found.kind}, {found.parameters:,} parameters, {found.trained:,} of them trained",
        f"step         {found.batch} frames ({reads}) over {found.processes} process(es), {found.parallel}, "
        f"{found.micro_batch} at a time",
        f"FLOPs        {found.step_flops:.3g} per step and process; {found.step_flops / 4e14:.3g} s at 400 TFLOP/s",
        "memory of one process [GiB], without CUDA's context and fragmentation",
        *(f"  {name:<18}{size / GIB:8.2f}" for name, size in parts.items()),
    ]
    return "\n".join(lines)


def _meta_model(config: PretrainConfig | FinetuneConfig, sizes: ModelConfig) -> VlaModel:
    """Return the model that would be trained, with its heads and adapters, without memory."""
    text = Vocabulary.fit(["word"]) if isinstance(sizes, TrunkConfig) else None
    model = model_class(sizes.KIND)(sizes, text)
    if isinstance(config, PretrainConfig) or config.latent_weight:
        model.give_latent_head(*LATENT)
        settle_history(config, model)
    if isinstance(config, FinetuneConfig):
        if config.continuous:
            model.give_chunk_head([0.0] * 7, [1.0] * 7, config.chunk)
        else:
            model.give_action_head(_bins(config.max_bins))
        if config.freeze_stem and config.init is not None:
            for parameter in model.vision_parameters():
                parameter.requires_grad_(False)
    bf16 = config.precision == "bf16"
    adapt(model, rank=config.lora_rank, alpha=config.lora_alpha, bf16=bf16)
    return model.train()


def _bins(most: int) -> ActionBins:
    values_NA = np.linspace(-1.0, 1.0, 4 * most, dtype=np.float32)[:, None].repeat(7, axis=1)
    return ActionBins.fit(values_NA, most)


def _one_pass(model: VlaModel, batch: int) -> _Pass:
    """Run forward and backward of one micro-batch on the meta device."""
    model.zero_grad()
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that no other one takes its place
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = _loss(model, _example(model, batch), batch)
        loss.backward()
    bytes_kept = sum(storage.nbytes() for storage in kept.values())
    return _Pass(float(counter.get_total_flops()), bytes_kept)


def _casts(model: VlaModel, config: PretrainConfig | FinetuneConfig) -> bool:
    """Return whether matrices are multiplied in bfloat16."""
    return config.precision == "bf16" or getattr(model.config, "dtype", "") == "bfloat16"


def _loss(model: VlaModel, inputs: Inputs, batch: int) -> Tensor:
    """Return a scalar that every head of the stage has a part in."""
    shared = model.read(inputs)
    parts = []
    if model.latent is not None:
        codes_BK = torch.zeros(batch, model.latent[0], dtype=torch.int64)
        parts.append(model.latent_logits(shared, codes_BK))
    if model.bins is not None:
        bins_BA = torch.zeros(batch, 7, dtype=torch.int64)
        parts.append(model.action_logits(shared, bins_BA))
    if model.chunk_head is not None:
        parts.append(model.chunk_actions(shared))
    return torch.stack([part.float().sum() for part in parts]).sum()


def _example(model: VlaModel, batch: int) -> Inputs:
    """Return inputs of the longest sequence, without memory."""
    sizes: Any = model.config
    told = {}
    if model.earlier is not None:
        told[HISTORY] = torch.zeros(batch, *model.earlier.shape, dtype=torch.int64)
    if sizes.KIND == "film":
        return {
            **told,
            "image": torch.zeros(batch, 3, sizes.image_px, sizes.image_px),
            "words": torch.zeros(batch, sizes.max_words, dtype=torch.int64),
        }
    if sizes.KIND == "lwm":
        ids = {
            "text": sizes.max_text,
            "vision": sizes.frame_tokens + 1,
            "open_latent": TAG_TOKENS,
            "open_action": TAG_TOKENS,
        }
        inputs = {k: torch.zeros(batch, n, dtype=torch.int64) for k, n in ids.items()}
        return {**inputs, **told, "seen": torch.ones(batch, sizes.max_text, dtype=torch.bool)}
    return {**_hf_example(model, batch), **told}


def _hf_example(model: Any, batch: int) -> Inputs:
    sizes = model.config
    frame = model.family.side_tokens(sizes.image_px) ** 2 * len(sizes.cameras)
    length = frame + sizes.max_text + (sizes.state_dim > 0) + model.earlier_places
    axes = model.family.positions(
        torch.zeros(1, length, dtype=torch.int64),
        torch.ones(1, length, dtype=torch.bool),
        model.family.side_tokens(sizes.image_px),
    ).shape[1:]
    inputs = {
        "ids": torch.zeros(batch, length, dtype=torch.int64),
        "visible": torch.ones(batch, length, dtype=torch.bool),
        "positions": torch.zeros(batch, *axes, dtype=torch.int64),
        "features": torch.zeros(batch, frame, model.width, dtype=next(model.parameters()).dtype),
    }
    if sizes.state_dim:
        inputs["state"] = torch.zeros(batch, sizes.state_dim)
    return inputs


def _positions(inputs: Inputs) -> int:
    if "ids" in inputs:
        return inputs["ids"].shape[1]
    if "text" not in inputs:
        return 0
    told = inputs[HISTORY][0].numel() if HISTORY in inputs else 0
    return told + sum(inputs[name].shape[1] for name in ("text", "vision", "open_action"))


def _standing(model: VlaModel, config: PretrainConfig | FinetuneConfig, processes: int) -> Memory:
    """Return what lies in memory between steps, with what can be divided divided among the processes."""
    bf16, sharded = _casts(model, config), config.parallel == "fsdp2"
    units = model.blocks()
    inside = {id(p) for unit in units for p in unit.parameters()}
    parts = processes if sharded else 1
    weights = trained = 0.0
    for parameter in model.parameters():
        size = _stored_bytes(parameter, config, id(parameter) in inside)
        apart = not parameter.requires_grad and id(parameter) not in inside
        weights += size if apart else size / parts
        trained += parameter.numel() / parts if parameter.requires_grad else 0
    return Memory(
        weights=round(weights),
        gradients=round(4 * trained * (2 if processes > 1 and not sharded else 1)),
        optimizer=round(8 * trained),
        gathered=round(_gathered_bytes(model, units, sharded=sharded, bf16=bf16)),
        activations=0,
    )


def _stored_bytes(
    parameter: nn.Parameter, config: PretrainConfig | FinetuneConfig, in_block: bool
) -> float:
    if parameter.requires_grad:
        return 4.0 * parameter.numel()
    if config.base == "nf4" and in_block and parameter.ndim == 2:
        return NF4_BYTES * parameter.numel()
    return float(parameter.numel() * parameter.element_size())


def _gathered_bytes(model: VlaModel, units: list[nn.Module], *, sharded: bool, bf16: bool) -> float:
    size = 2 if bf16 else 4
    inside = {id(p) for unit in units for p in unit.parameters()}
    outside = sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in inside)
    if not sharded:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return 2.0 * trained if bf16 else 0.0
    largest = max((sum(p.numel() for p in unit.parameters()) for unit in units), default=0)
    return size * (outside + 2 * largest) + (size + 4) * largest
