# SPDX-License-Identifier: Apache-2.0
"""`lapa laq train`: train a latent action model on frames alone."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lapa_core.data.store import FrameStore
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.checkpoint import build_laq, describe, save_laq
from lapa_core.laq.presets import LAQ_TRAIN as PRESETS
from lapa_core.laq.train_config import LaqTrainConfig
from lapa_core.laq.usage import code_usage, warn_if_collapsed
from lapa_core.train.augment import load_images, random_shift
from lapa_core.train.run import TrainingRun
from lapa_core.train.sampling import batch_indices, seed_step
from lapa_core.train.schedule import cosine_factor, set_learning_rate

__all__ = ["PRESETS", "LaqTrainConfig", "LaqTrained", "main", "train"]

log = logging.getLogger(__name__)

GRADIENT_CLIP = 0.5
USAGE_PAIRS = 20_000
"""Pairs whose codes are counted after training, and that k-means sees."""


class LaqTrained(NamedTuple):
    """What a training run leaves."""

    checkpoint: Path
    """Directory of the finished model."""
    history: list[tuple[int, dict[str, float]]]
    """Logged (step, metrics) of this process."""


def frames_only(store: FrameStore, max_episodes: int = 0) -> FrameStore:
    """Drop the actions: the stages that learn from videos cannot reach them."""
    if max_episodes:
        store = store.subset(range(min(max_episodes, store.num_episodes)))
    return FrameStore(
        frames=store.frames,
        episode_offsets=store.episode_offsets,
        instructions=store.instructions,
        fps=store.fps,
        timestamps_s=store.timestamps_s,
    )


def train(config: LaqTrainConfig, store: FrameStore | None = None) -> LaqTrained:
    """Run or resume training; `store` replaces the data set on disk (tests, experiments)."""
    store = store or FrameStore.load(config.data, config.model.image_px, progress=config.progress)
    store = frames_only(store, config.max_episodes)
    pairs_P2 = store.valid_pairs(config.gap_s)

    torch.manual_seed(config.seed)
    model = build_laq(config.model).to(config.device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    optimizer.param_groups[0]["base_lr"] = config.learning_rate
    settings = {**_shaping(config), "pairs": len(pairs_P2)}
    run = TrainingRun(
        config.out,
        settings,
        save_every=config.save_every,
        log_every=config.log_every,
        progress=config.progress,
    )

    for step in run.steps(run.restore(model, optimizer), config.steps):
        seed_step(config.seed, step)
        pair_B2 = pairs_P2[batch_indices(len(pairs_P2), config.batch_size, config.seed, step)]
        x0, x1 = (load_images(store.frames, pair_B2[:, i], config.device) for i in (0, 1))

        pair = torch.cat([x0, x1], dim=1)
        seen0, seen1 = random_shift(pair, config.shift_px).chunk(2, dim=1)
        start, target = random_shift(pair, config.shift_px).chunk(2, dim=1)
        loss = F.mse_loss(model.predict(seen0, seen1, start), target)
        set_learning_rate(
            optimizer, cosine_factor(step, config.steps, warmup_steps=min(100, config.steps // 10))
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
        optimizer.step()

        upkeep = model.after_step(step, config.steps)
        run.log(step, {"loss": loss.item(), "copy_loss": F.mse_loss(x0, x1).item(), **upkeep})
        run.save(step, model, optimizer)

    checkpoint = _finish(config, model, store.frames, pairs_P2, run)
    run.close()
    return LaqTrained(checkpoint, run.history)


def _finish(
    config: LaqTrainConfig,
    model: LatentActionModel,
    frames: NDArray[np.uint8],
    pairs_P2: NDArray[np.int64],
    run: TrainingRun,
) -> Path:
    """Fit the codebook where it is fitted afterwards, count the codes, save the model."""
    chosen = np.random.default_rng(config.seed).permutation(len(pairs_P2))[:USAGE_PAIRS]
    first, second = frames[pairs_P2[chosen, 0]], frames[pairs_P2[chosen, 1]]
    model.fit_codebook(torch.from_numpy(model.encode(first, second).vectors_BKD), config.seed)
    usage = code_usage(model.encode(first, second).codes_BK, model.codes)
    warn_if_collapsed(usage)
    perplexity = {f"perplexity/token{i}": p for i, p in enumerate(usage.perplexity_per_token)}
    run.log(
        config.steps - 1, {**perplexity, "perplexity/joint": usage.joint_perplexity}, force=True
    )
    facts = {"gap_s": config.gap_s, "usage": asdict(usage), "training": _shaping(config)}
    return save_laq(config.out / "checkpoint", model, config.model, **facts)


def _shaping(config: LaqTrainConfig) -> dict[str, object]:
    """The part of the configuration that shapes the losses."""
    skipped = {"out", "device", "progress", "save_every", "log_every", "model"}
    fields = {
        k: str(v) if isinstance(v, Path) else v
        for k, v in asdict(config).items()
        if k not in skipped
    }
    return {**fields, "model": describe(config.model)}


def main(config: LaqTrainConfig) -> None:
    """Train, and say where the model is."""
    print(f"latent action model: {train(config).checkpoint}")
