# SPDX-License-Identifier: Apache-2.0
"""`lapa unipi train`: teach a video diffusion model what comes next, from frames and instructions alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lapa_core.checkpoint import load_config
from lapa_core.data.content_hash import hash_texts
from lapa_core.data.store import FrameStore
from lapa_core.errors import ContractError, DataError
from lapa_core.train.augment import random_shift
from lapa_core.train.optimizer import adamw, descend
from lapa_core.train.run import TrainingRun
from lapa_core.train.sampling import batch_indices, seed_step
from lapa_core.train.schedule import cosine_factor, set_learning_rate
from lapa_core.unipi.checkpoint import load_video, save_video
from lapa_core.unipi.config import UNIPI_TRAIN as PRESETS
from lapa_core.unipi.config import UNIPI_TRAIN_NOTES as PRESET_NOTES
from lapa_core.unipi.config import UnipiTrainConfig
from lapa_core.unipi.model import VideoDiffusion
from lapa_core.unipi.samples import measure, samples_sheet
from lapa_core.unipi.windows import WindowBatch, Windows, find_windows, load_windows
from lapa_core.vla.labelled import drawn_episodes
from lapa_core.vla.words import Vocabulary

__all__ = ["PRESETS", "PRESET_NOTES", "UnipiTrainConfig", "UnipiTrained", "main", "train"]

GRADIENT_CLIP = 1.0
SHEET = "samples.png"
_STATISTICS_WINDOWS = 2048
"""Windows that the spread of the changes is measured on."""
_NOT_SHAPING = {"out", "device", "save_every", "log_every", "progress", "sampling_steps"}
"""Options that do not shape the losses, so that a resume may change them."""


class UnipiTrained(NamedTuple):
    """What a training run leaves."""

    checkpoint: Path
    """Directory of the finished model."""
    history: list[tuple[int, dict[str, float]]]
    """Logged (step, metrics)."""


def train(config: UnipiTrainConfig, store: FrameStore | None = None) -> UnipiTrained:
    """Run or resume training; `store`, with frames of any size, replaces the data set on disk (tests, experiments)."""
    start = None if config.init is None else load_video(config.init)
    sizes = config.model if start is None else start.model.config
    if config.sampling_steps > sizes.noise_steps:
        raise ContractError(
            f"sampling_steps is {config.sampling_steps}; {config.init} allows 1 to {sizes.noise_steps}"
        )
    store = store or FrameStore.load(config.data, sizes.image_px, progress=config.progress)
    learnt, held_out = _divided(config, store)
    learnt = learnt.at_size(sizes.image_px)
    windows = find_windows(learnt, sizes.frames, config.period_s)
    shown, shown_windows = learnt, windows
    if held_out is not None:
        shown = held_out.at_size(sizes.image_px)
        shown_windows = find_windows(shown, sizes.frames, config.period_s)

    device = torch.device(config.device)
    torch.manual_seed(config.seed)
    if start is None:
        spread = _change_std(learnt, windows, config.seed)
        model = VideoDiffusion(sizes, Vocabulary.fit(learnt.instructions), spread)
    else:
        model = start.model
    model.to(device).train()
    optimizer = adamw(model, config.learning_rate, weight_decay=config.weight_decay)
    settings = _shaping(config) | {
        "windows": len(windows.first_W),
        "instructions": hash_texts(learnt.instructions),
        "started_from": None if start is None else start.config["weights_sha256"],
    }
    run = TrainingRun(
        config.out,
        settings,
        save_every=config.save_every,
        log_every=config.log_every,
        progress=config.progress,
    )
    words_EL = model.encode(learnt.instructions)
    episode_W = learnt.episode_ids[windows.first_W]
    warmup_steps = min(100, config.steps // 10)
    for step in run.steps(run.restore(model, optimizer), config.steps):
        seed_step(config.seed, step)
        chosen_B = batch_indices(len(episode_W), config.batch_size, config.seed, step)
        batch = _shifted(load_windows(learnt, windows, chosen_B, device), config.shift_px)
        loss = model.loss(batch, words_EL[episode_W[chosen_B]])
        set_learning_rate(optimizer, cosine_factor(step, config.steps, warmup_steps))
        descend(loss, model, optimizer, GRADIENT_CLIP)
        if run.due(step):
            run.log(step, {"loss": loss.item()})
        run.save(step, model, optimizer)

    model.eval()
    error = measure(model, shown, shown_windows, config.sampling_steps)
    run.log(config.steps - 1, error.row(), force=True)
    run.close()
    sheet = samples_sheet(model, shown, shown_windows, config.sampling_steps)
    sheet.save(config.out / SHEET)
    checkpoint = save_video(
        config.out / "checkpoint",
        model,
        period_s=config.period_s,
        sampling_steps=config.sampling_steps,
        metrics={"held_out_episodes": config.held_out, **asdict(error)},
        training=settings,
    )
    return UnipiTrained(checkpoint, run.history)


def _divided(config: UnipiTrainConfig, store: FrameStore) -> tuple[FrameStore, FrameStore | None]:
    """Return the episodes to learn from, and those that are kept from it, if any.

    Raises:
        DataError: too few episodes.
    """
    if config.episodes:
        store = store.subset(drawn_episodes(store, config.episodes, config.subset_seed))
    kept = store.num_episodes - config.held_out
    if kept < 1:
        raise DataError(
            f"held_out is {config.held_out} of {store.num_episodes} episodes, which leaves none to learn from; hold "
            "fewer out, or 0"
        )
    if not config.held_out:
        return store, None
    return store.subset(range(kept)), store.subset(range(kept, store.num_episodes))


def _change_std(store: FrameStore, windows: Windows, seed: int) -> float:
    """Return the standard deviation of a pixel's change from the current frame to a future one.

    Raises:
        DataError: nothing changes.
    """
    chosen_B = batch_indices(len(windows.first_W), _STATISTICS_WINDOWS, seed, 0)
    batch = load_windows(store, windows, chosen_B, torch.device("cpu"))
    change_BF3SS = batch.later_BF3SS - batch.first_B3SS[:, None]
    spread = float(change_BF3SS[batch.known_BF].std())
    if not spread > 0.0:
        raise DataError("no pixel of the videos changes; videos of something that moves are needed")
    return spread


def _shifted(batch: WindowBatch, shift_px: int) -> WindowBatch:
    """Shift all frames of a window together, by a random number of pixels."""
    frames_BT3SS = torch.cat([batch.first_B3SS[:, None], batch.later_BF3SS], dim=1)
    shifted = random_shift(frames_BT3SS.flatten(1, 2), shift_px).unflatten(1, (-1, 3))
    return WindowBatch(shifted[:, 0], shifted[:, 1:], batch.known_BF)


def _shaping(config: UnipiTrainConfig) -> dict[str, Any]:
    """Return the part of the configuration that shapes the losses."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(config).items()
        if name not in _NOT_SHAPING
    }


def main(config: UnipiTrainConfig) -> None:
    """Train, say what the plans are worth, and where the model is."""
    trained = train(config)
    metrics = load_config(trained.checkpoint)["metrics"]
    whose = "held-out" if metrics["held_out_episodes"] else "training"
    rows = zip(metrics["plan"], metrics["copy"], strict=True)
    for ahead, (plan, copy) in enumerate(rows, start=1):
        print(
            f"frame +{ahead}: squared error {plan:.2e} on {whose} episodes, {copy:.2e} of repeating the first"
        )
    print(f"video model: {trained.checkpoint}\nwhat it plans: {config.out / SHEET}")
