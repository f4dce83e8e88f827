# SPDX-License-Identifier: Apache-2.0
"""`lapa vla pretrain`: learn to name the latent action that follows a frame under an instruction."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lapa_core.checkpoint import load_config
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.laq.label_source import identify
from lapa_core.laq.labels import LatentLabels
from lapa_core.laq.train import frames_only
from lapa_core.presets import VLA_PRETRAIN as PRESETS
from lapa_core.train.augment import load_images, random_light, random_shift
from lapa_core.train.run import TrainingRun
from lapa_core.train.sampling import batch_indices, seed_step
from lapa_core.train.schedule import cosine_factor, set_learning_rate
from lapa_core.vla.checkpoint import PRETRAINED, save_vla
from lapa_core.vla.config import PretrainConfig
from lapa_core.vla.model import VlaModel, latent_loss
from lapa_core.vla.words import PAD, UNKNOWN, Vocabulary

__all__ = ["PRESETS", "PretrainConfig", "VlaTrained", "main", "train"]

GRADIENT_CLIP = 1.0


class VlaTrained(NamedTuple):
    """What a training run leaves."""

    checkpoint: Path
    """Directory of the finished model."""
    history: list[tuple[int, dict[str, float]]]
    """Logged (step, metrics) of this process."""


def encode_instructions(store: FrameStore, vocabulary: Vocabulary, max_words: int) -> Tensor:
    """Return padded word indices (E, L), one row per episode."""
    return torch.from_numpy(
        np.stack([vocabulary.encode(text, max_words) for text in store.instructions])
    )


def forget_words(words_BL: Tensor, share: float) -> Tensor:
    """Replace a random share of the words by `<unk>`."""
    if share == 0.0:
        return words_BL
    forgotten = (torch.rand(words_BL.shape) < share) & (words_BL != PAD)
    return words_BL.masked_fill(forgotten, UNKNOWN)


def check_labels(labels: LatentLabels, store: FrameStore, laq: Path | None = None) -> None:
    """Refuse labels that were not made for these frames, or not by the model at `laq`.

    Raises:
        DataError: the labels belong to other data, or to another checkpoint.
    """
    advice = "run `lapa laq label` on this data set, or give the labels that belong to it"
    data = identify(store)
    if not labels.data.matches(data):
        raise DataError(
            f"the labels are of the data {labels.data.describe()}, the data set is {data.describe()} "
            f"({store.num_episodes} episodes, {len(store)} frames); {advice}"
        )
    if not np.array_equal(labels.pairs_P2, store.valid_pairs(labels.gap_s)):
        raise DataError(
            f"the {len(labels.pairs_P2)} pairs of the labels are not those of the data set at {labels.gap_s} s; "
            f"{advice}"
        )
    if laq is None:
        return
    made_by = load_config(laq, "laq")["weights_sha256"]
    if made_by != labels.checkpoint_hash:
        raise DataError(
            f"the labels are of checkpoint {labels.checkpoint_hash[:12]}, {laq} is {made_by[:12]}; {advice}"
        )


def standardised(labels: LatentLabels) -> Tensor:
    """Return the code vectors (N, D) with mean 0 and standard deviation 1 over the labels."""
    used_PD = labels.centres_ND[labels.codes_PK.ravel()]
    spread_D = np.maximum(used_PD.std(axis=0), 1e-6)
    return torch.from_numpy((labels.centres_ND - used_PD.mean(axis=0)) / spread_D).float()


def train(config: PretrainConfig, store: FrameStore | None = None) -> VlaTrained:
    """Run or resume pretraining; `store` replaces the data set on disk (tests, experiments)."""
    store = store or FrameStore.load(config.data, config.trunk.image_px, progress=config.progress)
    store = frames_only(store, config.max_episodes)
    labels = LatentLabels.load(config.labels)
    check_labels(labels, store, config.laq)
    vocabulary = Vocabulary.fit(store.instructions)
    words_EL = encode_instructions(store, vocabulary, config.trunk.max_words)
    first_P, episode_P = labels.pairs_P2[:, 0], store.episode_ids[labels.pairs_P2[:, 0]]
    codes_PK = torch.from_numpy(labels.codes_PK)
    centres_ND = standardised(labels).to(config.device)

    torch.manual_seed(config.seed)
    model = VlaModel(config.trunk, len(vocabulary), latent=(codes_PK.shape[1], labels.codes))
    model = model.to(config.device).train()
    head = model.need_latent_head()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    optimizer.param_groups[0]["base_lr"] = config.learning_rate
    run = TrainingRun(
        config.out,
        _settings(config, labels),
        save_every=config.save_every,
        log_every=config.log_every,
        progress=config.progress,
    )

    for step in run.steps(run.restore(model, optimizer), config.steps):
        seed_step(config.seed, step)
        batch = batch_indices(len(first_P), config.batch_size, config.seed, step)
        image = random_shift(
            load_images(store.frames, first_P[batch], config.device), config.shift_px
        )
        image = random_light(image, config.light)
        words = forget_words(words_EL[episode_P[batch]], config.unknown_word_share).to(
            config.device
        )
        codes = codes_PK[batch].to(config.device)

        logits = head(model.trunk(image, words))
        loss = latent_loss(logits, codes, centres_ND, config.mean_weight)
        set_learning_rate(
            optimizer, cosine_factor(step, config.steps, warmup_steps=min(100, config.steps // 10))
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
        optimizer.step()

        run.log(
            step,
            {"loss": loss.item(), "accuracy": (logits.argmax(-1) == codes).float().mean().item()},
        )
        run.save(step, model, optimizer)

    facts: dict[str, Any] = {
        "laq": labels.checkpoint_hash,
        "gap_s": labels.gap_s,
        "training": _settings(config, labels),
    }
    checkpoint = save_vla(
        config.out / "checkpoint", PRETRAINED, model, config.trunk, vocabulary, **facts
    )
    run.close()
    return VlaTrained(checkpoint, run.history)


def _settings(config: PretrainConfig, labels: LatentLabels) -> dict[str, Any]:
    skipped = {"out", "device", "progress", "save_every", "log_every", "labels", "laq"}
    fields = {
        k: str(v) if isinstance(v, Path) else v
        for k, v in asdict(config).items()
        if k not in skipped
    }
    return {**fields, "laq": labels.checkpoint_hash, "pairs": len(labels.pairs_P2)}


def main(config: PretrainConfig) -> None:
    """Pretrain, and say where the model is."""
    print(f"pretrained model: {train(config).checkpoint}")
