# SPDX-License-Identifier: Apache-2.0
"""Inverse dynamics models as checkpoints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from lapa_core.checkpoint import load_checkpoint, provenance, save_checkpoint
from lapa_core.errors import CheckpointError
from lapa_core.idm.config import IdmModelConfig
from lapa_core.idm.model import InverseDynamics

KIND = "idm"


class LoadedIdm(NamedTuple):
    """A trained model and what its checkpoint says of it."""

    model: InverseDynamics
    """In evaluation mode."""
    config: dict[str, Any]
    """`gap_s` between the frames of a pair, `contract` of the actions, how it was trained."""


def save_idm(directory: Path, model: InverseDynamics, sizes: IdmModelConfig, **facts: Any) -> Path:
    """Save a trained model; `facts` go into its config.json."""
    config = {"kind": KIND, "model": asdict(sizes), **facts, "provenance": provenance()}
    return save_checkpoint(directory, dict(model.state_dict()), config)


def load_idm(directory: str | Path, device: str = "cpu") -> LoadedIdm:
    """Rebuild a trained model.

    Raises:
        CheckpointError: missing, damaged, or no inverse dynamics model.
    """
    tensors, config = load_checkpoint(directory, KIND)
    try:
        sizes = IdmModelConfig(**config["model"])
        model = InverseDynamics(sizes, tensors["head.mean_A"], tensors["head.std_A"])
        model.load_state_dict(tensors, strict=True)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{directory} does not fit its own description: {error}") from error
    return LoadedIdm(model.to(device).eval(), config)
