# SPDX-License-Identifier: Apache-2.0
"""`lapa laq train`: train a latent action model on frames alone, in one process or under torchrun in many."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from lapa_core.data.store import FrameStore
from lapa_core.laq.action_head import ActionHead, latent_width
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.checkpoint import describe, start_laq
from lapa_core.laq.objective import Labelled, LaqObjective
from lapa_core.laq.presets import LAQ_TRAIN as PRESETS
from lapa_core.laq.presets import LAQ_TRAIN_NOTES as PRESET_NOTES
from lapa_core.laq.train_config import LaqTrainConfig
from lapa_core.laq.train_data import LaqData, frames_only
from lapa_core.laq.train_finish import finish
from lapa_core.train.augment import images_of
from lapa_core.train.optimizer import adamw, descend
from lapa_core.train.pair_augment import PairAugment
from lapa_core.train.pairs import StorePairs, actions_between
from lapa_core.train.parallel import Parallel, leave
from lapa_core.train.run import TrainingRun
from lapa_core.train.sampling import seed_step
from lapa_core.train.schedule import cosine_factor, set_learning_rate

__all__ = [
    "PRESETS",
    "PRESET_NOTES",
    "LaqTrainConfig",
    "LaqTrained",
    "frames_only",
    "main",
    "train",
]

GRADIENT_CLIP = 0.5
_NOT_SHAPING = {
    "out", "device", "compile", "parallel", "workers", "save_every", "log_every", "progress", "model",
}  # fmt: skip
"""Options that do not shape the losses, so that a resume may change them."""


class LaqTrained(NamedTuple):
    """What a training run leaves."""

    checkpoint: Path
    """Directory of the finished model; a trained action head lies beside it in `action_head/`."""
    history: list[tuple[int, dict[str, float]]]
    """Logged (step, metrics) of this process."""


def train(
    config: LaqTrainConfig, store: FrameStore | None = None, labelled: FrameStore | None = None
) -> LaqTrained:
    """Run or resume training; `store` and `labelled` replace the data sets on disk (tests, experiments)."""
    parallel = Parallel(config.device, config.parallel)
    with parallel.leader_first():
        data = LaqData.load(config, store, labelled)
    ranks = {"rank": parallel.rank, "world": parallel.world}
    labelled_pairs = data.labelled_pairs(**ranks)

    torch.manual_seed(config.seed)
    model, started_from = start_laq(config.model, config.init)
    model.train()
    objective = LaqObjective(
        model,
        _action_head(model, labelled_pairs),
        action_weight=config.action_weight,
        precision=config.precision,
    )
    module = parallel.wrap(objective, compiled=config.compile)
    optimizer = adamw(
        objective, config.learning_rate, weight_decay=config.weight_decay, beta2=config.beta2
    )
    augment = PairAugment(
        shift_px=config.shift_px,
        crop=config.crop,
        light=config.light,
        colour=config.colour,
        **ranks,
    )
    run = TrainingRun(
        config.out,
        {**_shaping(config), **data.identity(), **started_from},
        save_every=config.save_every,
        log_every=config.log_every,
        progress=config.progress,
        leads=parallel.leads,
    )
    first_step = run.restore(objective, optimizer)

    with closing(data.pairs(**ranks, first_step=first_step)) as batches:
        for step in run.steps(first_step, config.steps):
            seed_step(config.seed, step)
            model.set_step(seed=config.seed, step=step, **ranks)
            x0, x1 = images_of(batches.batch(step), parallel.device)
            known = _labelled_batch(labelled_pairs, step, parallel.device)
            losses = module(*augment(x0, x1), *augment(x0, x1), known)

            set_learning_rate(optimizer, _rate(config, step))
            descend(losses["loss"], objective, optimizer, GRADIENT_CLIP)
            upkeep = model.after_step(step, config.steps)
            if run.due(step):  # reading a loss off waits for the device
                metrics = {name: value.item() for name, value in losses.items()}
                copy_loss = F.mse_loss(model.target(x0), model.target(x1)).item()
                run.log(step, parallel.mean({**metrics, "copy_loss": copy_loss, **upkeep}))
            run.save(step, objective, optimizer)

    checkpoint = finish(config, objective, data, parallel, run, _shaping(config))
    run.close()
    return LaqTrained(checkpoint, run.history)


def _action_head(model: LatentActionModel, labelled_pairs: StorePairs | None) -> ActionHead | None:
    """Return a head with the statistics of all labelled pairs, if there are any."""
    if labelled_pairs is None or labelled_pairs.store.actions is None:
        return None
    actions_PA = actions_between(labelled_pairs.store.actions, labelled_pairs.pairs_P2)
    return ActionHead.for_actions(latent_width(model), actions_PA)


def _labelled_batch(pairs: StorePairs | None, step: int, device: torch.device) -> Labelled | None:
    """Return this step's labelled pairs, if there are any."""
    if pairs is None:
        return None
    batch = pairs.batch(step)
    return Labelled(*images_of(batch, device), torch.as_tensor(batch.actions_BA, device=device))


def _rate(config: LaqTrainConfig, step: int) -> float:
    """Return the factor of the learning rate."""
    if config.schedule == "constant":
        return 1.0
    return cosine_factor(step, config.steps, warmup_steps=min(100, config.steps // 10))


def _shaping(config: LaqTrainConfig) -> dict[str, object]:
    """The part of the configuration that shapes the losses."""
    fields = {
        k: str(v) if isinstance(v, Path) else v
        for k, v in asdict(config).items()
        if k not in _NOT_SHAPING
    }
    return {**fields, "model": describe(config.model)}


def main(config: LaqTrainConfig) -> None:
    """Train, and say where the model is."""
    try:
        trained = train(config)
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            print(f"latent action model: {trained.checkpoint}")
    finally:
        leave()
