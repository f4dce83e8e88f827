# SPDX-License-Identifier: Apache-2.0
"""`lapa vla finetune`: latent head off, action head on; first the head alone, then the trunk gently with it.

Finetuning all weights at full speed on 50 episodes overfits every trunk (facts/sim.md, round 2: 96 % becomes
80 %). So the new head is fitted on the standing trunk first, and the trunk then moves at a fraction of its rate.
Without a pretrained checkpoint the same loop trains from scratch.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lapa_core.actions.bins import ActionBins
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.presets import VLA_FINETUNE as PRESETS
from lapa_core.train.augment import load_images, random_light, random_shift
from lapa_core.train.run import TrainingRun
from lapa_core.train.sampling import batch_indices, seed_step
from lapa_core.train.schedule import cosine_factor, set_learning_rate
from lapa_core.vla.checkpoint import POLICY, load_vla, policy_facts, save_vla
from lapa_core.vla.config import FinetuneConfig, TrunkConfig
from lapa_core.vla.model import ActionHead, VlaModel, action_loss
from lapa_core.vla.pretrain import GRADIENT_CLIP, VlaTrained, encode_instructions
from lapa_core.vla.words import Vocabulary

__all__ = ["PRESETS", "FinetuneConfig", "labelled_subset", "main", "train"]


class Start(NamedTuple):
    """Where finetuning starts from."""

    model: VlaModel
    """Pretrained or fresh trunk with a fresh action head; no latent head."""
    trunk: TrunkConfig
    """Its sizes."""
    vocabulary: Vocabulary
    """Pretrained or fresh words."""


class Samples(NamedTuple):
    """The labelled frames."""

    frames_NSSC: NDArray[np.uint8]
    """Images, possibly on disk."""
    words_NL: Tensor
    """Padded word indices."""
    bins_NA: Tensor
    """Bin of every action dimension."""


def true_actions(store: FrameStore) -> NDArray[np.float32]:
    """Return the actions (N, 7).

    Raises:
        DataError: the data set has none.
    """
    if store.actions is None:
        raise DataError("the data set has no actions; finetuning needs episodes recorded with them")
    return store.actions


def labelled_subset(store: FrameStore, episodes: int, seed: int) -> FrameStore:
    """Draw labelled episodes; with one seed, a smaller draw is part of a larger one.

    Raises:
        DataError: the data set has no actions or too few episodes.
    """
    true_actions(store)
    if episodes > store.num_episodes:
        raise DataError(
            f"{episodes} labelled episodes are asked for; the data set has {store.num_episodes}"
        )
    order = np.random.default_rng(seed).permutation(store.num_episodes)
    return store.subset(order[: episodes or store.num_episodes])


def start_from(config: FinetuneConfig, store: FrameStore, bins: ActionBins) -> Start:
    """Build the model: a pretrained trunk when `init` is given, else a fresh one; the action head is always fresh."""
    torch.manual_seed(config.seed)
    if config.init is None:
        vocabulary = Vocabulary.fit(store.instructions)
        return Start(VlaModel(config.trunk, len(vocabulary), bins=bins), config.trunk, vocabulary)
    loaded = load_vla(config.init)
    loaded.model.latent_head = None
    loaded.model.action_head = ActionHead(loaded.trunk.features, bins)
    return Start(loaded.model, loaded.trunk, loaded.vocabulary)


def make_optimizer(model: VlaModel, config: FinetuneConfig) -> torch.optim.AdamW:
    """Group the parameters: the head at full rate, the trunk at `trunk_factor`, a frozen stem not at all."""
    if config.freeze_stem and config.init is not None:
        model.trunk.stem.requires_grad_(False)
    trunk = [p for p in model.trunk.parameters() if p.requires_grad]
    groups = [
        {"params": list(model.need_action_head().parameters()), "base_lr": config.learning_rate},
        {"params": trunk, "base_lr": config.learning_rate * config.trunk_factor},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)


def train(config: FinetuneConfig, store: FrameStore | None = None) -> VlaTrained:
    """Run or resume finetuning; `store` replaces the data set on disk (tests, experiments)."""
    image_px = (config.trunk if config.init is None else load_vla(config.init).trunk).image_px
    store = store or FrameStore.load(config.data, image_px, progress=config.progress)
    store = labelled_subset(store, config.episodes, config.subset_seed)
    bins = ActionBins.fit(true_actions(store), config.max_bins)
    model, trunk, vocabulary = start_from(config, store, bins)
    model = model.to(config.device).train()
    head = model.need_action_head()
    samples = _samples(store, vocabulary, trunk.max_words, bins)
    optimizer = make_optimizer(model, config)
    run = TrainingRun(
        config.out,
        _settings(config),
        save_every=config.save_every,
        log_every=config.log_every,
        progress=config.progress,
    )
    first_step = run.restore(model, optimizer)

    for step in run.steps(first_step, config.steps):
        seed_step(config.seed, step)
        rows = batch_indices(len(store), config.batch_size, config.seed, step)
        image = random_shift(load_images(samples.frames_NSSC, rows, config.device), config.shift_px)
        image = random_light(image, config.light)

        with torch.set_grad_enabled(step >= config.head_steps):
            features = model.trunk(image, samples.words_NL[rows].to(config.device))
        logits = head(F.dropout(features, config.dropout))
        bins_BA = samples.bins_NA[rows].to(config.device)
        loss = action_loss(logits, bins_BA, head, config.smoothing_bins, config.mean_weight)
        set_learning_rate(
            optimizer, cosine_factor(step, config.steps, warmup_steps=min(50, config.steps // 10))
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
        optimizer.step()

        run.log(step, {"loss": loss.item()})
        run.save(step, model, optimizer)

    facts = {
        **policy_facts(config.contract, bins, config.temperature),
        "training": _settings(config),
    }
    facts["instructions"] = sorted(set(store.instructions))[:100]
    checkpoint = save_vla(config.out / "checkpoint", POLICY, model, trunk, vocabulary, **facts)
    run.close()
    return VlaTrained(checkpoint, run.history)


def _samples(
    store: FrameStore, vocabulary: Vocabulary, max_words: int, bins: ActionBins
) -> Samples:
    words_EL = encode_instructions(store, vocabulary, max_words)
    return Samples(
        frames_NSSC=store.frames,
        words_NL=words_EL[store.episode_ids],
        bins_NA=torch.from_numpy(bins.encode(true_actions(store))),
    )


def _settings(config: FinetuneConfig) -> dict[str, object]:
    skipped = {"out", "device", "progress", "save_every", "log_every"}
    return {
        k: str(v) if isinstance(v, Path) else v
        for k, v in asdict(config).items()
        if k not in skipped
    }


def main(config: FinetuneConfig) -> None:
    """Finetune, and say where the policy is."""
    print(f"policy: {train(config).checkpoint}")
