# SPDX-License-Identifier: Apache-2.0
"""The training loop of both stages, for any model, in one process or in many.

Shapes: B examples of this process's part of a batch, R examples that are reported on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lapa_core.checkpoint import load_config
from lapa_core.errors import ContractError
from lapa_core.train.augment import random_light, random_shift
from lapa_core.train.parallel import Parallel, leave, to_master, whole
from lapa_core.train.run import TrainingRun
from lapa_core.train.sampling import Part, seed_step
from lapa_core.train.schedule import cosine_factor, set_learning_rate
from lapa_core.vla.adapters import adapt, merged
from lapa_core.vla.base import Inputs, VlaModel
from lapa_core.vla.batches import Batch, Batches
from lapa_core.vla.checkpoint import describe, save_vla
from lapa_core.vla.config import FinetuneConfig, LoopConfig, PretrainConfig

GRADIENT_CLIP = 1.0
NOT_SHAPING = {
    "out", "device", "compile", "recompute", "parallel", "micro_batch", "dry_run", "processes", "save_every",
    "log_every", "progress", "model", "workers",
}  # fmt: skip
"""Options that do not shape the losses, so that a resume may change them; the model is described apart."""


class VlaTrained(NamedTuple):
    """What a training run leaves."""

    checkpoint: Path
    """Directory of the finished model."""
    history: list[tuple[int, dict[str, float]]]
    """Logged (step, metrics) of this process."""
    leads: bool = True
    """Whether this process is the one that writes and talks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """What a stage adds to the loop."""

    groups: Callable[[VlaModel], list[dict[str, Any]]]
    """Returns the parameter groups with their `base_lr`; asked when the model is where it trains."""
    warmup_steps: int
    """Of the cosine schedule."""
    held_steps: int = 0
    """First steps in which only the first group learns."""
    unknown_word_share: float = 0.0
    """Share of words that are replaced by "unknown"."""
    baseline: dict[str, float] = field(default_factory=dict)
    """Constants that every row of metrics repeats beside the accuracies: the shares of the commonest ids."""


def shaping(config: LoopConfig, model: VlaModel) -> dict[str, Any]:
    """Return the part of a configuration that shapes the losses, JSON-able, with the model that is trained."""
    fields = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(config).items()
        if name not in NOT_SHAPING
    }
    for name in ("init", "idm"):  # states leave out what stands still: it must be the same again
        if made := fields.get(name):
            fields[f"{name}_sha256"] = load_config(made)["weights_sha256"]
    return {**fields, "model": describe(model.config)}


def settle_history(config: LoopConfig, model: VlaModel) -> None:
    """Let a model read the codes of as many earlier frames as the stage asks for.

    Raises:
        ContractError: `init` was trained with another number.
    """
    own = 0 if model.earlier is None else model.earlier.shape[0]
    if own and own != config.history:
        raise ContractError(
            f"the checkpoint to start from reads the codes of {own} earlier frame(s), history is {config.history}; "
            f"give --history {own}, or start from another"
        )
    if config.history and not own:
        model.give_history(config.history)


def open_run(config: LoopConfig, settings: dict[str, Any], parallel: Parallel) -> TrainingRun:
    """Open the run directory of a stage."""
    return TrainingRun(
        config.out,
        settings,
        save_every=config.save_every,
        log_every=config.log_every,
        progress=config.progress,
        leads=parallel.leads,
    )


def run_command(
    config: PretrainConfig | FinetuneConfig,
    train: Callable[[], VlaTrained],
    told: Callable[[dict[str, Any]], object],
) -> None:
    """Do what a stage's command line asks for and print what came of it, in the leading process.

    Args:
        config: the stage's.
        train: trains.
        told: turns the `metrics` of the finished checkpoint into text.
    """
    if config.dry_run:
        from lapa_core.vla.estimate import estimate, table  # torch's counting tools come with it

        print(table(estimate(config)))
        return
    try:
        trained = train()
        if trained.leads:
            facts = load_config(trained.checkpoint)
            print(told(facts["metrics"]))
            print(f"{facts['kind']} model: {trained.checkpoint}")
    finally:
        leave()


def run_loop(
    config: LoopConfig,
    objective: nn.Module,
    model: VlaModel,
    batches: Batches,
    recipe: Recipe,
    parallel: Parallel,
    run: TrainingRun,
) -> nn.Module:
    """Train, or go on from the run's state; every process must call.

    Args:
        config: the stage's.
        objective: called with inputs, labels, and whether all but the first group stands still.
        model: inside the objective.
        batches: what is learned.
        recipe: what the stage adds.
        parallel: the processes that train together.
        run: the run's directory.

    Returns:
        What is called in the objective's place, in evaluation mode.
    """
    module = _wrap(config, objective, model, parallel)
    groups = recipe.groups(model)
    later = [parameter for group in groups[1:] for parameter in group["params"]]
    optimizer = torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=parallel.device.type == "cuda",
    )
    objective.train()
    for step in run.steps(run.restore(objective, optimizer), config.steps):
        seed_step(config.seed, step)
        batch = batches.batch(step)
        inputs = _inputs(config, model, batch, recipe.unknown_word_share, parallel.part)
        if parallel.rank:
            seed_step(config.seed, step, parallel.rank)  # dropout is each process's own
        held = step < recipe.held_steps
        set_learning_rate(optimizer, _rate(config, step, recipe.warmup_steps))
        optimizer.zero_grad()
        losses = _backward(
            parallel,
            module,
            inputs,
            batch.labels,
            config.micro_batch or len(batch.words),
            held=held,
        )
        if held:
            for parameter in later:
                parameter.grad = None
        nn.utils.clip_grad_norm_(objective.parameters(), GRADIENT_CLIP)
        optimizer.step()

        if run.due(step):  # reading a loss off waits for the device
            metrics = {name: value.item() for name, value in losses.items()}
            run.log(step, {**parallel.mean(metrics), **recipe.baseline})
        run.save(step, objective, optimizer)
    module.eval()
    return module


class Predicted(NamedTuple):
    """What a trained objective predicts for some frames."""

    ids: NDArray[Any]
    """Predictions (R, ...)."""
    labels: dict[str, NDArray[Any]]
    """Their labels."""


@torch.no_grad()
def predictions(module: nn.Module, model: VlaModel, batches: Iterable[Batch]) -> Predicted:
    """Return what a trained objective predicts; every process must call.

    Sequence models see the true tokens before each one, as in training.
    """
    parts: list[NDArray[Any]] = []
    labels: dict[str, list[NDArray[Any]]] = {}
    for batch in batches:
        inputs = model.prepare(batch.image_BCHW, batch.words, batch.extra)
        parts.append(module(inputs, batch.labels)["predicted"].cpu().numpy())
        for name, rows in batch.labels.items():
            labels.setdefault(name, []).append(rows.cpu().numpy())
    joined = {name: np.concatenate(rows) for name, rows in labels.items()}
    return Predicted(np.concatenate(parts), joined)


def stored_types(model: VlaModel) -> dict[str, torch.dtype]:
    """Return the types that `save_trained` shall write: those of the weights before they become float32 to learn."""
    return {name: tensor.dtype for name, tensor in model.state_dict().items()}


def save_trained(
    config: LoopConfig,
    kind: str,
    model: VlaModel,
    parallel: Parallel,
    types: Mapping[str, torch.dtype],
    **facts: Any,
) -> Path:
    """Save a trained model whole, adapters added to their layers; every process must call.

    Args:
        config: the stage's.
        kind: `pretrained` or `policy`.
        model: inside the objective that was trained.
        parallel: the processes that trained together.
        types: of `stored_types`, before training; tensors that are not named are written as they are.
        **facts: further entries of config.json.

    Returns:
        The checkpoint.
    """
    directory = config.out / "checkpoint"
    own = (
        merged(model, whole)
        if config.lora_rank
        else ((name, whole(tensor)) for name, tensor in model.state_dict().items())
    )
    weights = ((name, tensor.to(types.get(name, tensor.dtype))) for name, tensor in own)
    if parallel.leads:
        save_vla(directory, kind, model, weights=weights, **facts)
    else:
        for _ in weights:
            pass  # gathering a tensor takes all processes
    parallel.wait()
    return directory


def _backward(
    parallel: Parallel,
    module: nn.Module,
    inputs: Inputs,
    labels: dict[str, Tensor],
    micro_batch: int,
    *,
    held: bool,
) -> dict[str, Tensor]:
    """Add the gradients of a batch, some frames at a time, and return the means of what the objective returns."""
    count = len(next(iter(labels.values())))
    means: dict[str, Tensor] = {}
    for start in range(0, count, micro_batch):
        part = slice(start, min(start + micro_batch, count))
        with parallel.adding(module, last=part.stop == count):
            losses = module(_cut(inputs, part), _cut(labels, part), held)
            share = (part.stop - part.start) / count
            (share * losses["loss"]).backward()
        for name, value in losses.items():
            means[name] = means.get(name, 0.0) + share * value.detach()
    return means


def _cut(tensors: dict[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {name: tensor[part] for name, tensor in tensors.items()}


def _wrap(
    config: LoopConfig, objective: nn.Module, model: VlaModel, parallel: Parallel
) -> nn.Module:
    adapt(
        model,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        nf4=config.base == "nf4",
        bf16=config.precision == "bf16",
    )
    if not (parallel.launched or config.compile or config.recompute):
        # Convolutions keep their layout, and the losses their last bit.
        return to_master(objective, parallel.device)
    return parallel.wrap(
        objective,
        compiled=config.compile,
        units=model.blocks() or None,
        bf16=config.precision == "bf16",
        recomputed=config.recompute,
    )


@torch.no_grad()
def _inputs(
    config: LoopConfig,
    model: VlaModel,
    batch: Batch,
    unknown_word_share: float,
    part: Part,
) -> Inputs:
    """Augment and tokenise a batch; randomness is drawn for the joint batch."""
    image_BCHW = random_shift(batch.image_BCHW, config.shift_px, part)
    image_BCHW = random_light(image_BCHW, config.light, part)
    inputs = model.prepare(image_BCHW, batch.words, batch.extra)
    return model.forget_words(inputs, unknown_word_share, part)


def _rate(config: LoopConfig, step: int, warmup_steps: int) -> float:
    """Return the factor of the learning rate."""
    if config.schedule == "constant":
        return 1.0
    return cosine_factor(step, config.steps, warmup_steps=warmup_steps)
