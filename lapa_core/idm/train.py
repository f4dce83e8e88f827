# SPDX-License-Identifier: Apache-2.0
"""`lapa idm train`: learn from labelled episodes which action lies between two frames."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.checkpoint import load_config
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.idm.checkpoint import save_idm
from lapa_core.idm.config import IDM_TRAIN as PRESETS
from lapa_core.idm.config import IDM_TRAIN_NOTES as PRESET_NOTES
from lapa_core.idm.config import IdmTrainConfig
from lapa_core.idm.model import InverseDynamics
from lapa_core.idm.pseudo import seen_actions
from lapa_core.train.augment import images_of
from lapa_core.train.optimizer import adamw, descend
from lapa_core.train.pair_augment import PairAugment
from lapa_core.train.pairs import StorePairs, actions_between
from lapa_core.train.run import TrainingRun
from lapa_core.train.sampling import seed_step
from lapa_core.train.schedule import cosine_factor, set_learning_rate
from lapa_core.vla.labelled import labelled_subset, learnt_contract, true_actions

__all__ = ["PRESETS", "PRESET_NOTES", "IdmTrainConfig", "IdmTrained", "main", "train"]

GRADIENT_CLIP = 1.0
STILL = 1e-6
"""Spread of an action dimension below which it never changed [m, rad, opening]: float noise."""
_NOT_SHAPING = {"out", "device", "save_every", "log_every", "progress"}
"""Options that do not shape the losses, so that a resume may change them."""


class IdmTrained(NamedTuple):
    """What a training run leaves."""

    checkpoint: Path
    """Directory of the finished model."""
    history: list[tuple[int, dict[str, float]]]
    """Logged (step, metrics)."""


def train(config: IdmTrainConfig, store: FrameStore | None = None) -> IdmTrained:
    """Run or resume training; `store`, with frames of any size, replaces the data set on disk (tests, experiments)."""
    contract = learnt_contract(config.data, config.contract)
    store = store or FrameStore.load(config.data, config.model.image_px, progress=config.progress)
    drawn = labelled_subset(store, config.episodes, config.subset_seed).at_size(
        config.model.image_px
    )
    kept = drawn.num_episodes - round(config.test_share * drawn.num_episodes)
    if not kept:
        raise DataError(
            f"test_share is {config.test_share} of {drawn.num_episodes} episode(s), which leaves none to train on; "
            "give a smaller one or more episodes"
        )
    gap_s = 1.0 / drawn.fps
    pairs = StorePairs(
        drawn.subset(range(kept)), batch_size=config.batch_size, gap_s=gap_s, seed=config.seed
    )
    actions_PA = actions_between(true_actions(pairs.store), pairs.pairs_P2)
    mean_A, std_A = actions_PA.mean(axis=0), actions_PA.std(axis=0)

    device = torch.device(config.device)
    torch.manual_seed(config.seed)
    model = InverseDynamics(config.model, torch.from_numpy(mean_A), torch.from_numpy(std_A))
    model.to(device).train()
    optimizer = adamw(model, config.learning_rate, weight_decay=config.weight_decay)
    augment = PairAugment(shift_px=config.shift_px, light=config.light)
    settings = {
        k: str(v) if isinstance(v, Path) else v
        for k, v in asdict(config).items()
        if k not in _NOT_SHAPING
    }
    settings |= {"pairs": len(pairs.pairs_P2), "contract": contract}
    run = TrainingRun(
        config.out,
        settings,
        save_every=config.save_every,
        log_every=config.log_every,
        progress=config.progress,
    )
    warmup_steps = min(50, config.steps // 10)
    for step in run.steps(run.restore(model, optimizer), config.steps):
        seed_step(config.seed, step)
        batch = pairs.batch(step)
        x0_BCHW, x1_BCHW = augment(*images_of(batch, device))
        loss = model.loss(x0_BCHW, x1_BCHW, torch.as_tensor(batch.actions_BA, device=device))
        set_learning_rate(optimizer, cosine_factor(step, config.steps, warmup_steps))
        descend(loss, model, optimizer, GRADIENT_CLIP)
        if run.due(step):
            run.log(step, {"loss": loss.item()})
        run.save(step, model, optimizer)
    run.close()

    model.eval()
    metrics = {"train_pairs": len(pairs.pairs_P2)}
    if kept < drawn.num_episodes:
        metrics |= measure(model, drawn.subset(range(kept, drawn.num_episodes)), gap_s)
    checkpoint = save_idm(
        config.out / "checkpoint",
        model,
        config.model,
        gap_s=gap_s,
        contract=contract,
        metrics=metrics,
        training=settings,
    )
    return IdmTrained(checkpoint, run.history)


def measure(model: InverseDynamics, store: FrameStore, gap_s: float) -> dict[str, Any]:
    """Return what the actions that a model sees are worth on episodes that it was not trained on.

    `r2` and `mean_error` [m, rad, opening] are by action dimension. R2 is 0 for what always says the mean of the
    training; a dimension that stays at it has none.
    """
    pairs_P2 = store.valid_pairs(gap_s)
    true_PA = actions_between(true_actions(store), pairs_P2).astype(np.float64)
    error_PA = seen_actions(store, pairs_P2, model) - true_PA
    spread_A = ((true_PA - model.head.mean_A.cpu().numpy()) ** 2).mean(axis=0)
    changes_A = spread_A > STILL**2
    share_A = 1.0 - (error_PA**2).mean(axis=0) / np.where(changes_A, spread_A, 1.0)
    columns = zip(ACTION_NAMES, share_A, changes_A, strict=True)
    return {
        "test_pairs": len(pairs_P2),
        "r2": {name: float(share) for name, share, changes in columns if changes},
        "mean_error": dict(zip(ACTION_NAMES, np.abs(error_PA).mean(axis=0).tolist(), strict=True)),
    }


def main(config: IdmTrainConfig) -> None:
    """Train, say what the model is worth on episodes that it did not see, and where it is."""
    trained = train(config)
    metrics = load_config(trained.checkpoint)["metrics"]
    for name, r2 in metrics.get("r2", {}).items():
        print(f"{name:8s} R2 {r2:6.3f}   mean error {metrics['mean_error'][name]:.4f}")
    print(f"inverse dynamics model: {trained.checkpoint}")
