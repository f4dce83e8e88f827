# SPDX-License-Identifier: Apache-2.0
"""Video diffusion models as checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lapa_core.checkpoint import load_checkpoint, provenance, save_checkpoint
from lapa_core.errors import CheckpointError
from lapa_core.unipi.config import VideoConfig
from lapa_core.unipi.model import VideoDiffusion
from lapa_core.vla.words import Vocabulary

KIND = "unipi_video"
IDM_FOLDER = "idm"
"""Where a policy's checkpoint holds that of its inverse dynamics model."""


class LoadedVideo(NamedTuple):
    """A trained video model and what its checkpoint says of it."""

    model: VideoDiffusion
    """In evaluation mode."""
    config: dict[str, Any]
    """`period_s` between the frames of a plan, `sampling_steps`, how it was trained."""


def described(model: VideoDiffusion) -> dict[str, Any]:
    """Return what rebuilds a model beside its weights."""
    sizes = {"kind": "unipi", **asdict(model.config)}
    return {"model": sizes, "text": model.text.to_dict(), "image_px": model.config.image_px}


def save_video(directory: Path, model: VideoDiffusion, **facts: Any) -> Path:
    """Save a trained model; `facts` go into its config.json."""
    config = {"kind": KIND, **described(model), **facts, "provenance": provenance()}
    return save_checkpoint(directory, dict(model.state_dict()), config)


def load_video(directory: str | Path, device: str = "cpu", *, kind: str = KIND) -> LoadedVideo:
    """Rebuild a trained model.

    Args:
        directory: the checkpoint.
        device: where the model shall be.
        kind: of the checkpoint; a policy that plans with it holds its weights too.

    Raises:
        CheckpointError: missing, damaged, or no video model.
    """
    tensors, config = load_checkpoint(directory, kind)
    try:
        model = rebuilt(tensors, config)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{directory} does not fit its own description: {error}") from error
    return LoadedVideo(model.to(device).eval(), config)


def rebuilt(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> VideoDiffusion:
    """Build the model that a config describes, with these weights."""
    sizes = {name: value for name, value in config["model"].items() if name != "kind"}
    sizes["widths"] = tuple(sizes["widths"])
    model = VideoDiffusion(VideoConfig(**sizes), Vocabulary(config["text"]["words"]))
    model.load_state_dict(tensors, strict=True)
    return model
