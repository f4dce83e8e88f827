# SPDX-License-Identifier: Apache-2.0
"""`lapa vla finetune`: latent head off, action head on; first the head alone, then the trunk gently with it.

Finetuning all weights at full speed on 50 episodes overfits every trunk (facts/sim.md, round 2: 96 % becomes
80 %). So the new head is fitted on the standing trunk first, and the trunk then moves at a fraction of its rate.
Without a pretrained checkpoint the same loop trains from scratch.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lapa_core.actions.bins import ActionBins
from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.checkpoint import load_config
from lapa_core.data.store import FrameStore
from lapa_core.errors import CheckpointError, DataError
from lapa_core.idm.checkpoint import load_idm
from lapa_core.idm.pseudo import pseudo_labelled
from lapa_core.laq.labels import LatentLabels
from lapa_core.presets import VLA_FINETUNE as PRESETS
from lapa_core.presets import VLA_FINETUNE_NOTES as PRESET_NOTES
from lapa_core.train.parallel import Parallel
from lapa_core.vla.base import VlaModel, model_class
from lapa_core.vla.batches import ExampleBatches, Examples, spread_rows
from lapa_core.vla.checkpoint import POLICY, load_model_config, load_vla, policy_facts
from lapa_core.vla.config import FinetuneConfig, ModelConfig
from lapa_core.vla.extra import load_extra
from lapa_core.vla.history import HISTORY, earlier_codes
from lapa_core.vla.labelled import (
    drawn_episodes,
    frame_codes,
    frame_rows,
    future_actions,
    labelled_subset,
    learnt_contract,
    true_actions,
)
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
from lapa_core.vla.metrics import (
    ActionError,
    TokenReport,
    action_error,
    as_row,
    decode_rows,
    majority_share,
    token_report,
)
from lapa_core.vla.objective import FinetuneObjective
from lapa_core.vla.pretrain_data import check_labels

__all__ = ["PRESETS", "PRESET_NOTES", "FinetuneConfig", "labelled_subset", "main", "train"]


def train(config: FinetuneConfig, store: FrameStore | None = None) -> VlaTrained:
    """Run or resume finetuning; `store` replaces the data set on disk (tests, experiments)."""
    idm = None if config.idm is None else load_idm(config.idm, config.device)
    named = config.contract or ("" if idm is None else str(idm.config["contract"]))
    contract = learnt_contract(config.data, named)
    parallel = Parallel(config.device, config.parallel, static=False)
    sizes = config.model if config.init is None else pretrained_sizes(config.init)
    with parallel.leader_first():
        store = store or FrameStore.load(config.data, sizes.image_px, progress=config.progress)
    with parallel.leader_first():
        extra = load_extra(config.data, sizes, store, progress=config.progress)
    if idm is not None:
        store, rows_N = pseudo_labelled(store, idm.model, idm.config["gap_s"])
        extra = {name: rows[rows_N] for name, rows in extra.items()}
    drawn = labelled_subset(store, config.episodes, config.subset_seed)
    bins = ActionBins.fit(true_actions(drawn), config.max_bins)
    labels = read_labels(config, store)
    if labels is not None and config.history:
        extra[HISTORY] = earlier_codes(labels.pairs_P2, labels.codes_PK, len(store), config.history)
    examples = make_examples(config, store, drawn, bins, extra, labels)

    torch.manual_seed(config.seed)
    model = start_from(config, drawn, bins, labels)
    types = stored_types(model)
    objective = FinetuneObjective(
        model,
        smoothing_bins=config.smoothing_bins,
        mean_weight=config.mean_weight,
        latent_weight=config.latent_weight,
        bf16=config.precision == "bf16",
    )
    settings = shaping(config, model)
    run = open_run(config, settings, parallel)
    recipe = make_recipe(config, bins.encode(true_actions(drawn)))
    batches = ExampleBatches(config, examples, parallel)
    module = run_loop(config, objective, model, batches, recipe, parallel, run)
    true_RA = true_actions(drawn)[spread_rows(len(examples))]
    predicted_RA = predictions(module, model, batches.report()).ids
    facts: dict[str, Any] = {
        **policy_facts(contract, bins, config.temperature),
        "gripper_hysteresis": config.gripper_hysteresis,
        **({} if labels is None else {"laq": labels.checkpoint_hash, "gap_s": labels.gap_s}),
        "metrics": report(config, bins, predicted_RA, true_RA),
        "training": settings,
        "instructions": sorted(set(drawn.instructions))[:100],
    }
    out = save_trained(config, POLICY, model, parallel, types, **facts)
    run.close()
    return VlaTrained(out, run.history, parallel.leads)


def pretrained_sizes(init: Path) -> ModelConfig:
    """Return the sizes of the checkpoint to start from.

    Raises:
        CheckpointError: it is not there, or is none.
    """
    if not init.exists():
        raise CheckpointError(
            f"there is no {init} to start from; make it with `lapa vla pretrain`, name another with --init, or train "
            "from scratch (presets sim_scratch, debug_scratch; --init None)"
        )
    return load_model_config(init)


def read_labels(config: FinetuneConfig, store: FrameStore) -> LatentLabels | None:
    """Return the codes of the labelled data set, where the latent head is kept.

    Raises:
        DataError: they are not of this data set.
    """
    if not config.latent_weight or config.labels is None:
        return None
    labels = LatentLabels.load(config.labels)
    check_labels(labels, store)
    return labels


def start_from(
    config: FinetuneConfig, store: FrameStore, bins: ActionBins, labels: LatentLabels | None
) -> VlaModel:
    """Build the model: a pretrained one when `init` is given, else a fresh one; the head for actions is always fresh.

    Raises:
        ContractError: the pretrained one reads the codes of another number of earlier frames.
        DataError: the latent head that is kept speaks the codes of another latent action model.
    """
    if config.init is None:
        model = model_class(config.model.KIND).start(config.model, store.instructions)
    else:
        model = load_vla(config.init).model
        model.drop_action_head()
    model.chunk_head = None
    if labels is None:
        model.drop_latent_head()
    else:
        _keep_latent_head(config, model, labels)
    settle_history(config, model)
    if config.continuous:
        actions_NA = true_actions(store).astype(np.float64)
        model.give_chunk_head(
            actions_NA.mean(axis=0).tolist(), actions_NA.std(axis=0).tolist(), config.chunk
        )
    else:
        model.give_action_head(bins)
    model.dropout.p = config.dropout
    if config.freeze_stem and config.init is not None:
        for parameter in model.vision_parameters():
            parameter.requires_grad_(False)
    return model


def make_examples(
    config: FinetuneConfig,
    store: FrameStore,
    drawn: FrameStore,
    bins: ActionBins,
    extra: dict[str, NDArray[Any]],
    codes: LatentLabels | None,
) -> Examples:
    """Join the drawn frames with the labels that the objective reads."""
    labels: dict[str, Tensor] = {"bins": torch.from_numpy(bins.encode(true_actions(drawn)))}
    if config.continuous:
        chunk, known = future_actions(drawn, config.chunk)
        labels = {"chunk": torch.from_numpy(chunk), "known": torch.from_numpy(known)}
    rows_N = frame_rows(store, drawn_episodes(store, config.episodes, config.subset_seed))
    if codes is not None:
        labels["codes"] = torch.from_numpy(frame_codes(codes, store)[rows_N])
    return Examples(
        frames_NSSC=drawn.frames,
        rows_M=np.arange(len(drawn)),
        episode_M=drawn.episode_ids,
        instructions=drawn.instructions,
        labels=labels,
        extra={name: rows[rows_N] for name, rows in extra.items()},
    )


def make_recipe(config: FinetuneConfig, bins_NA: NDArray[np.int64]) -> Recipe:
    """Say which parameters learn how fast: the head at full rate, the rest at `trunk_factor`."""

    def groups(model: VlaModel) -> list[dict[str, Any]]:
        head: list[nn.Parameter] = [] if model.bins is None else model.action_parameters()
        if model.chunk_head is not None:
            head = head + list(model.chunk_head.parameters())
        own = {id(parameter) for parameter in head}
        trunk = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
        return [
            {"params": head, "base_lr": config.learning_rate},
            {"params": trunk, "base_lr": config.learning_rate * config.trunk_factor},
        ]

    shares = {} if config.continuous else as_row("majority", majority_share(bins_NA), ACTION_NAMES)
    return Recipe(
        groups=groups,
        warmup_steps=min(50, config.steps // 10),
        held_steps=config.head_steps,
        baseline={name: value.item() for name, value in shares.items()},
    )


def report(
    config: FinetuneConfig,
    bins: ActionBins,
    predicted_RA: NDArray[Any],
    true_RA: NDArray[np.float32],
) -> dict[str, Any]:
    """Return the figures on the training frames that the checkpoint keeps."""
    figures: dict[str, Any] = {"frames": len(true_RA)}
    actions_RA = predicted_RA
    if not config.continuous:
        figures["bins"] = asdict(token_report(predicted_RA, bins.encode(true_RA), ACTION_NAMES))
        actions_RA = decode_rows(bins, predicted_RA)
    return {**figures, "action": asdict(action_error(actions_RA, true_RA))}


def _keep_latent_head(config: FinetuneConfig, model: VlaModel, labels: LatentLabels) -> None:
    shape = (labels.codes_PK.shape[1], labels.codes)
    made_by = None if config.init is None else load_config(config.init).get("laq")
    if model.latent is None:
        model.give_latent_head(*shape)
    elif model.latent != shape or made_by != labels.checkpoint_hash:
        raise DataError(
            f"{config.init} speaks the codes of the latent action model {str(made_by)[:12]} {model.latent}, the labels "
            f"are of {labels.checkpoint_hash[:12]} {shape}; label the data with the model that it was pretrained with"
        )


def main(config: FinetuneConfig) -> None:
    """Finetune, and say what the predictions are worth and where the policy is."""

    def told(facts: dict[str, Any]) -> str:
        named = [str(TokenReport(**facts["bins"]))] if "bins" in facts else []
        return "\n".join([*named, str(ActionError(**facts["action"]))])

    run_command(config, lambda: train(config), told)
