# SPDX-License-Identifier: Apache-2.0
"""Configurations of what is done with a trained latent action model. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class LaqLabelConfig:
    """Label every frame pair of a data set with a trained latent action model."""

    data: Path
    """Data set to label."""
    checkpoint: Path
    """Directory of the trained model."""
    out: Path | None = None
    """Label file; default `<data>.latents/<first 12 digits of the checkpoint hash>.npz`, beside the data set."""
    max_episodes: int = 0
    """Use only the first episodes; 0 uses all."""
    device: str = "cpu"
    """Torch device."""


@dataclass(frozen=True, kw_only=True)
class LaqProbeConfig:
    """Measure how much of the true motion a model's codes hold, on held-out episodes."""

    data: Path
    """Data set with true actions; the latent action model never saw them."""
    checkpoint: Path
    """Directory of the trained model."""
    out: Path | None = None
    """JSON file for the figures; they are printed too."""
    first_episode: int = 0
    """First episode used: give one behind those the model was trained on."""
    episodes: int = 0
    """Episodes used; 0 uses all to the end. Half fit the probe, half score it."""
    device: str = "cpu"
    """Torch device."""
