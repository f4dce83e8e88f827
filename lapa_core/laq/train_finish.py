# SPDX-License-Identifier: Apache-2.0
"""The end of a training run: codes fitted where they are fitted afterwards, counted, everything saved."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapa_core.checkpoint import load_config
from lapa_core.laq.action_head import save_action_head
from lapa_core.laq.base import LatentActionModel, LatentActions
from lapa_core.laq.checkpoint import build_laq, save_laq
from lapa_core.laq.objective import LaqObjective
from lapa_core.laq.train_config import LaqTrainConfig
from lapa_core.laq.train_data import LaqData
from lapa_core.laq.usage import code_usage, warn_if_collapsed
from lapa_core.train.parallel import Parallel, whole
from lapa_core.train.run import TrainingRun

USAGE_PAIRS = 20_000
"""Pairs whose codes are counted after training, and that k-means sees."""


def finish(
    config: LaqTrainConfig,
    objective: LaqObjective,
    data: LaqData,
    parallel: Parallel,
    run: TrainingRun,
    training: dict[str, Any],
) -> Path:
    """Save the model, and its action head beside it, from rank 0; every rank must call.

    Args:
        config: configuration of the run.
        objective: what was trained.
        data: what it was trained on.
        parallel: the processes that trained.
        run: where the usage of the codes is logged.
        training: the configuration as the checkpoint shall tell it.

    Returns:
        The directory of the model.
    """
    out = config.out / "checkpoint"
    tensors = {name: whole(tensor) for name, tensor in objective.state_dict().items()}
    if parallel.leads:
        model = _on_one_process(config, objective, tensors, parallel)
        usage = _fit_and_count(config, model, data, run)
        facts = {"gap_s": data.gap_s, "usage": usage, "training": training}
        save_laq(out, model, config.model, **facts)
        head = {name[5:]: t for name, t in tensors.items() if name.startswith("head.")}
        if head:
            made_by = load_config(out)["weights_sha256"]
            save_action_head(config.out / "action_head", head, laq_sha256=made_by, gap_s=data.gap_s)
    parallel.wait()
    return out


def _on_one_process(
    config: LaqTrainConfig,
    objective: LaqObjective,
    tensors: dict[str, torch.Tensor],
    parallel: Parallel,
) -> LatentActionModel:
    """Return the model undivided, and free of what belongs to training together."""
    if parallel.world == 1 and not parallel.launched:
        return objective.model
    model = build_laq(config.model)
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    return model.to(parallel.device)


def _fit_and_count(
    config: LaqTrainConfig, model: LatentActionModel, data: LaqData, run: TrainingRun
) -> dict[str, Any]:
    """Fit the codebook on pairs as labelling forms them, and return how its codes are used."""
    latent = _encode(model, data)
    if not model.quantiser.quantises_in_training:
        model.fit_codebook(torch.from_numpy(latent.vectors_BKD), config.seed)
        latent = _encode(model, data)
    usage = code_usage(latent.codes_BK, model.codes)
    warn_if_collapsed(usage)
    perplexity = {f"perplexity/token{i}": p for i, p in enumerate(usage.perplexity_per_token)}
    run.log(
        config.steps - 1, {**perplexity, "perplexity/joint": usage.joint_perplexity}, force=True
    )
    return asdict(usage)


def _encode(model: LatentActionModel, data: LaqData) -> LatentActions:
    """Encode up to `USAGE_PAIRS` pairs, batch by batch: frames of a large model's size do not all fit in memory."""
    batches, epoch = data.examples()
    parts: list[LatentActions] = []
    try:
        for step in range(epoch):
            batch = batches.batch(step)
            parts.append(model.encode(batch.x0_BSSC, batch.x1_BSSC))
            if len(parts) * len(batch.x0_BSSC) >= USAGE_PAIRS:
                break
    finally:
        batches.close()
    codes, vectors = zip(*parts, strict=True)
    return LatentActions(np.concatenate(codes), np.concatenate(vectors))
