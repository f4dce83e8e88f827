# SPDX-License-Identifier: Apache-2.0
"""`lapa vla pretrain`: learn to name the latent action that follows a frame under an instruction."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.checkpoint import load_config
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.laq.label_source import identify
from lapa_core.laq.labels import LatentLabels
from lapa_core.laq.train import frames_only
from lapa_core.presets import VLA_PRETRAIN as PRESETS
from lapa_core.presets import VLA_PRETRAIN_NOTES as PRESET_NOTES
from lapa_core.train.parallel import Parallel
from lapa_core.vla.base import VlaModel, model_class
from lapa_core.vla.checkpoint import PRETRAINED, load_model_config, load_vla
from lapa_core.vla.config import PretrainConfig
from lapa_core.vla.extra import load_extra
from lapa_core.vla.history import HISTORY, earlier_codes
from lapa_core.vla.loop import (
    Examples,
    Recipe,
    VlaTrained,
    open_run,
    predictions,
    run_command,
    run_loop,
    save_trained,
    settle_history,
    shaping,
    spread_rows,
    stored_types,
)
from lapa_core.vla.metrics import TokenReport, as_row, majority_share, token_report
from lapa_core.vla.objective import PretrainObjective

__all__ = ["PRESETS", "PRESET_NOTES", "PretrainConfig", "VlaTrained", "main", "train"]


def check_labels(labels: LatentLabels, store: FrameStore, laq: Path | None = None) -> None:
    """Refuse labels that were not made for these frames, or not by the model at `laq`.

    Raises:
        DataError: the labels belong to other data, or to another checkpoint.
    """
    advice = (
        "run `lapa laq label` on this data set, or give the labels that belong to it; --max-episodes must be that of "
        "the labels (0 for all)"
    )
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
    parallel = Parallel(config.device, config.parallel, static=False)
    sizes = config.model if config.init is None else load_model_config(config.init)
    with parallel.leader_first():
        store = store or FrameStore.load(config.data, sizes.image_px, progress=config.progress)
    with parallel.leader_first():
        extra = load_extra(config.data, sizes, store, progress=config.progress)
    store = frames_only(store, config.max_episodes)
    labels = LatentLabels.load(config.labels)
    check_labels(labels, store, config.laq)
    if config.history:
        extra[HISTORY] = earlier_codes(labels.pairs_P2, labels.codes_PK, len(store), config.history)

    torch.manual_seed(config.seed)
    model = _start(config, store, labels)
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
    examples = _examples(store, labels, extra)
    module = run_loop(config, objective, model, examples, recipe, parallel, run)
    report_R = spread_rows(len(examples))
    named_RK = predictions(module, model, examples, report_R, config.batch_size, parallel.device)
    report = token_report(named_RK, labels.codes_PK[report_R], objective.names)
    facts: dict[str, Any] = {
        "laq": labels.checkpoint_hash,
        "gap_s": labels.gap_s,
        "metrics": {"frames": len(report_R), "codes": asdict(report)},
        "training": settings,
    }
    out = save_trained(config, PRETRAINED, model, parallel, types, **facts)
    run.close()
    return VlaTrained(out, run.history, parallel.leads)


def _start(config: PretrainConfig, store: FrameStore, labels: LatentLabels) -> VlaModel:
    """Return the model with a latent head for these codes: fresh, or a checkpoint's own where it fits."""
    tokens = labels.codes_PK.shape[1]
    if config.init is None:
        model = model_class(config.model.KIND).start(config.model, store.instructions)
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


def _examples(store: FrameStore, labels: LatentLabels, extra: dict[str, NDArray[Any]]) -> Examples:
    first_P = labels.pairs_P2[:, 0]
    return Examples(
        frames_NSSC=store.frames,
        rows_M=first_P,
        episode_M=store.episode_ids[first_P],
        instructions=store.instructions,
        labels={"codes": torch.from_numpy(labels.codes_PK)},
        extra=extra,
    )


def main(config: PretrainConfig) -> None:
    """Pretrain, and say what the predictions are worth and where the model is."""
    run_command(config, lambda: train(config), lambda facts: TokenReport(**facts["codes"]))
