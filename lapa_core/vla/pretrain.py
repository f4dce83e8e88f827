# SPDX-License-Identifier: Apache-2.0
"""`lapa vla pretrain`: learn to name the latent action that follows a frame under an instruction."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lapa_core.data.store import FrameStore
from lapa_core.laq.labels import LatentLabels
from lapa_core.presets import VLA_PRETRAIN as PRESETS
from lapa_core.presets import VLA_PRETRAIN_NOTES as PRESET_NOTES
from lapa_core.train.parallel import Parallel
from lapa_core.vla.base import VlaModel, model_class
from lapa_core.vla.checkpoint import PRETRAINED, load_model_config, load_vla
from lapa_core.vla.config import PretrainConfig
from lapa_core.vla.loop import (
    Recipe,
    VlaTrained,
    open_run,
    predictions,
    run_command,
    run_loop,
    save_trained,
    settle_history,
    shaping,
    stored_types,
)
from lapa_core.vla.metrics import TokenReport, as_row, majority_share, token_report
from lapa_core.vla.objective import PretrainObjective
from lapa_core.vla.pretrain_data import PretrainData, open_data

__all__ = ["PRESETS", "PRESET_NOTES", "PretrainConfig", "VlaTrained", "main", "train"]


def standardised(labels: LatentLabels) -> Tensor:
    """Return the code vectors (N, D) with mean 0 and standard deviation 1 over the labels."""
    used_PD = labels.centres_ND[labels.codes_PK.ravel()]
    spread_D = np.maximum(used_PD.std(axis=0), 1e-6)
    return torch.from_numpy((labels.centres_ND - used_PD.mean(axis=0)) / spread_D).float()


def train(config: PretrainConfig, store: FrameStore | None = None) -> VlaTrained:
    """Run or resume pretraining; `store` replaces the data set on disk (tests, experiments)."""
    parallel = Parallel(config.device, config.parallel, static=False)
    sizes = config.model if config.init is None else load_model_config(config.init)
    data = open_data(config, sizes, store, parallel)
    labels = data.labels

    torch.manual_seed(config.seed)
    model = _start(config, data)
    types = stored_types(model)
    objective = PretrainObjective(
        model,
        standardised(labels),
        mean_weight=config.mean_weight,
        text_weight=config.text_weight,
        bf16=config.precision == "bf16",
    )
    shares = as_row("majority", majority_share(labels.codes_PK), objective.names)
    recipe = Recipe(
        groups=partial(_groups, learning_rate=config.learning_rate),
        warmup_steps=min(100, config.steps // 10),
        unknown_word_share=config.unknown_word_share,
        baseline={name: value.item() for name, value in shares.items()},
    )
    settings = {
        **{k: v for k, v in shaping(config, model).items() if k not in ("labels", "laq")},
        "laq": labels.checkpoint_hash,
        "pairs": len(labels.pairs_P2),
    }
    run = open_run(config, settings, parallel)
    with closing(data.batches) as batches:
        module = run_loop(config, objective, model, batches, recipe, parallel, run)
        named = predictions(module, model, batches.report())
    report = token_report(named.ids, named.labels["codes"], objective.names)
    facts: dict[str, Any] = {
        "laq": labels.checkpoint_hash,
        "gap_s": labels.gap_s,
        "metrics": {"frames": len(named.ids), "codes": asdict(report)},
        "training": settings,
    }
    out = save_trained(config, PRETRAINED, model, parallel, types, **facts)
    run.close()
    return VlaTrained(out, run.history, parallel.leads)


def _start(config: PretrainConfig, data: PretrainData) -> VlaModel:
    """Return the model with a latent head for these codes: fresh, or a checkpoint's own where it fits."""
    labels = data.labels
    tokens = labels.codes_PK.shape[1]
    if config.init is None:
        model = model_class(config.model.KIND).start(config.model, data.instructions)
    else:
        model = load_vla(config.init).model
        model.drop_action_head()
    if model.latent != (tokens, labels.codes):
        model.give_latent_head(tokens, labels.codes)
        model.earlier = None  # read codes of other numbers
    settle_history(config, model)
    return model


def _groups(model: VlaModel, learning_rate: float) -> list[dict[str, Any]]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [{"params": trained, "base_lr": learning_rate}]


def main(config: PretrainConfig) -> None:
    """Pretrain, and say what the predictions are worth and where the model is."""
    run_command(config, lambda: train(config), lambda facts: TokenReport(**facts["codes"]))
