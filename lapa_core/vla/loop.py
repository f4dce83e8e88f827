# SPDX-License-Identifier: Apache-2.0
"""The training loop of both stages, for any model, in one process or in many.

Shapes: E episodes, M examples, B examples of this process's part of a batch, C H W image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lapa_core.checkpoint import load_config
from lapa_core.errors import ContractError
from lapa_core.train.augment import load_images, random_light, random_shift
from lapa_core.train.parallel import Parallel, leave, to_master, whole
from lapa_core.train.rows import Rows
from lapa_core.train.run import TrainingRun
from lapa_core.train.sampling import Part, seed_step
from lapa_core.train.schedule import cosine_factor, set_learning_rate
from lapa_core.vla.adapters import adapt, merged
from lapa_core.vla.base import Inputs, VlaModel
from lapa_core.vla.checkpoint import describe, save_vla
from lapa_core.vla.config import FinetuneConfig, LoopConfig, PretrainConfig
from lapa_core.vla.extra import extra_tensors

GRADIENT_CLIP = 1.0
REPORT_FRAMES = 2048
"""Most frames that the figures in a checkpoint are taken over."""
NOT_SHAPING = {
    "out", "device", "compile", "recompute", "parallel", "micro_batch", "dry_run", "processes", "save_every",
    "log_every", "progress", "model",
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
class Examples:
    """Labelled frames."""

    frames_NSSC: NDArray[np.uint8]
    """All images, possibly on disk."""
    rows_M: NDArray[np.int64]
    """Frame of each example."""
    episode_M: NDArray[np.int64]
    """Episode of each example."""
    instructions: Sequence[str]
    """One per episode."""
    labels: dict[str, Tensor]
    """What the objective reads, one row per example."""
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Further cameras and the state (`lapa_core.vla.extra`), one row per frame."""

    def __len__(self) -> int:
        return len(self.rows_M)

    def images(self, batch_B: NDArray[np.int64], device: torch.device) -> Tensor:
        """Return the frames (B, C, H, W) of some examples."""
        return load_images(self.frames_NSSC, self.rows_M[batch_B], device)

    def extra_of(
        self, batch_B: NDArray[np.int64], device: torch.device
    ) -> dict[str, Tensor] | None:
        """Return the extra inputs of some examples; None where there are none."""
        rows_B = self.rows_M[batch_B]
        return extra_tensors({name: rows[rows_B] for name, rows in self.extra.items()}, device)

    def words(self, batch_B: NDArray[np.int64]) -> list[str]:
        """Return the instructions of some examples."""
        return [self.instructions[episode] for episode in self.episode_M[batch_B]]

    def lengths(self) -> NDArray[np.int64]:
        """Return the length of every example's instruction (M,) [characters]."""
        return np.array([len(text) for text in self.instructions])[self.episode_M]

    def labels_of(self, batch_B: NDArray[np.int64], device: torch.device) -> dict[str, Tensor]:
        """Return the labels of some examples."""
        return {name: rows[batch_B].to(device) for name, rows in self.labels.items()}


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
    if init := fields.get("init"):  # states leave out what stands still: it must be the same again
        fields["init_sha256"] = load_config(init)["weights_sha256"]
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
    examples: Examples,
    recipe: Recipe,
    parallel: Parallel,
    run: TrainingRun,
) -> nn.Module:
    """Train, or go on from the run's state; every process must call.

    Args:
        config: the stage's.
        objective: called with inputs, labels, and whether all but the first group stands still.
        model: inside the objective.
        examples: what is learned.
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
    rows = Rows(
        count=len(examples),
        batch_size=config.batch_size,
        seed=config.seed,
        part=parallel.part,
        lengths_N=examples.lengths(),
        window=config.length_window,
    )
    objective.train()
    for step in run.steps(run.restore(objective, optimizer), config.steps):
        seed_step(config.seed, step)
        batch_B = rows(step)
        inputs = _inputs(config, model, examples, batch_B, recipe.unknown_word_share, parallel)
        labels = examples.labels_of(batch_B, parallel.device)
        if parallel.rank:
            seed_step(config.seed, step, parallel.rank)  # dropout is each process's own
        held = step < recipe.held_steps
        set_learning_rate(optimizer, _rate(config, step, recipe.warmup_steps))
        optimizer.zero_grad()
        losses = _backward(
            parallel, module, inputs, labels, config.micro_batch or len(batch_B), held=held
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


@torch.no_grad()
def predictions(
    module: nn.Module,
    model: VlaModel,
    examples: Examples,
    rows_R: NDArray[np.int64],
    batch_size: int,
    device: torch.device,
) -> NDArray[Any]:
    """Return what a trained objective predicts for some examples, (R, ...); every process must call.

    Sequence models see the true tokens before each one, as in training.
    """
    parts = []
    for batch_B in np.array_split(rows_R, -(-len(rows_R) // batch_size)):
        images_BCHW, words = examples.images(batch_B, device), examples.words(batch_B)
        inputs = model.prepare(images_BCHW, words, examples.extra_of(batch_B, device))
        parts.append(module(inputs, examples.labels_of(batch_B, device))["predicted"].cpu().numpy())
    return np.concatenate(parts)


def spread_rows(count: int, most: int = REPORT_FRAMES) -> NDArray[np.int64]:
    """Return up to `most` row numbers, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


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
    examples: Examples,
    batch_B: NDArray[np.int64],
    unknown_word_share: float,
    parallel: Parallel,
) -> Inputs:
    """Load, augment and tokenise a batch; randomness is drawn for the joint batch."""
    part: Part = parallel.part
    image_BCHW = random_shift(examples.images(batch_B, parallel.device), config.shift_px, part)
    image_BCHW = random_light(image_BCHW, config.light, part)
    extra = examples.extra_of(batch_B, parallel.device)
    inputs = model.prepare(image_BCHW, examples.words(batch_B), extra)
    return model.forget_words(inputs, unknown_word_share, part)


def _rate(config: LoopConfig, step: int, warmup_steps: int) -> float:
    """Return the factor of the learning rate."""
    if config.schedule == "constant":
        return 1.0
    return cosine_factor(step, config.steps, warmup_steps=warmup_steps)
