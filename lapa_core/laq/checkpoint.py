# SPDX-License-Identifier: Apache-2.0
"""Latent action models as checkpoints: the config names the design and its sizes, and rebuilds it strictly."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lapa_core.checkpoint import load_checkpoint, provenance, save_checkpoint
from lapa_core.errors import CheckpointError
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.config import ConvLaqConfig, PatchLaqConfig
from lapa_core.laq.conv import ConvLaq
from lapa_core.laq.model import PatchLaq
from lapa_core.laq.release import ReleaseLaq

KIND = "laq"
DESIGNS: dict[str, tuple[type, type]] = {
    "conv": (ConvLaqConfig, ConvLaq),
    "patch": (PatchLaqConfig, PatchLaq),
}
"""Name in the checkpoint -> (configuration, model)."""


def build_laq(config: ConvLaqConfig | PatchLaqConfig) -> LatentActionModel:
    """Build the untrained model that a configuration describes."""
    if isinstance(config, PatchLaqConfig) and config.compat == "release":
        return ReleaseLaq(config)
    return next(model for kind, model in DESIGNS.values() if isinstance(config, kind))(config)


def describe(config: ConvLaqConfig | PatchLaqConfig) -> dict[str, Any]:
    """Return the JSON-able form of a model configuration; `build_laq(restore(...))` is its inverse."""
    design = next(name for name, (kind, _) in DESIGNS.items() if isinstance(config, kind))
    return {"design": design, **asdict(config)}


def save_laq(
    directory: Path, model: LatentActionModel, config: ConvLaqConfig | PatchLaqConfig, **facts: Any
) -> Path:
    """Save a trained model; `facts` (gap_s, training configuration, usage ...) go into its config.json."""
    description = {"kind": KIND, "model": describe(config), **facts, "provenance": provenance()}
    return save_checkpoint(directory, dict(model.state_dict()), description)


def start_laq(
    config: ConvLaqConfig | PatchLaqConfig, init: Path | None
) -> tuple[LatentActionModel, dict[str, Any]]:
    """Build a model to train, with the weights of a checkpoint if one is given, and say which they are.

    Raises:
        CheckpointError: the checkpoint holds another design or other sizes.
    """
    if init is None:
        return build_laq(config), {}
    model, facts = load_laq(init)
    wanted, held = json.loads(json.dumps(describe(config))), facts["model"]
    if differ := sorted(k for k in wanted if wanted[k] != held.get(k)):
        told = ", ".join(f"{k} {held.get(k)!r} instead of {wanted[k]!r}" for k in differ)
        raise CheckpointError(
            f"{init} holds a model with {told}; choose the preset or the model options that it was made with"
        )
    return model, {"init": facts["weights_sha256"]}


def load_laq(
    directory: str | Path, device: str = "cpu"
) -> tuple[LatentActionModel, dict[str, Any]]:
    """Rebuild a trained model in evaluation mode, with its config.

    Raises:
        CheckpointError: missing, damaged, or not a latent action model.
    """
    tensors, config = load_checkpoint(directory, KIND)
    fields = dict(config["model"])
    design = fields.pop("design", None)
    if design not in DESIGNS:
        raise CheckpointError(
            f"{directory} holds the design {design!r}; known are {sorted(DESIGNS)}"
        )
    try:
        model = build_laq(DESIGNS[design][0](**fields))
        model.load_state_dict(tensors, strict=True)
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(f"{directory} does not fit its own description: {error}") from error
    return model.to(device).eval(), config
