# SPDX-License-Identifier: Apache-2.0
"""Configuration of the training of a latent action model. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lapa_core.errors import ContractError
from lapa_core.laq.config import ConvLaqConfig, PatchLaqConfig


@dataclass(frozen=True, kw_only=True)
class LaqTrainConfig:
    """Train a latent action model on the frames of a data set."""

    data: Path
    """LeRobot data set, RLDS directory, or folder of videos."""
    out: Path = Path("outputs/laq")
    """Run directory; the finished model is in its `checkpoint/`."""
    model: ConvLaqConfig | PatchLaqConfig = field(default_factory=ConvLaqConfig)
    """Which design, and its sizes."""
    gap_s: float = 0.2
    """Time between the two frames of a pair [s]."""
    steps: int = 900
    """Optimizer steps."""
    batch_size: int = 128
    """Pairs per step."""
    learning_rate: float = 2e-3
    """Peak learning rate (AdamW, cosine to zero)."""
    weight_decay: float = 1e-4
    """AdamW weight decay."""
    shift_px: int = 0
    """Shift the pair that is encoded and the one that is decoded, each on its own, by up to this many pixels.

    A latent then cannot say *where* the arm ends, only how it moved. 0 is off, as in the paper."""
    max_episodes: int = 0
    """Use only the first episodes; 0 uses all."""
    seed: int = 0
    """Seed of weights, order and noise."""
    device: str = "cpu"
    """Torch device."""
    save_every: int = 500
    """Steps between resumable states; 0 saves none."""
    log_every: int = 50
    """Steps between rows of metrics."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        if self.gap_s <= 0:
            raise ContractError(f"gap_s is {self.gap_s}; it must be positive seconds")
        if self.steps < 1 or self.batch_size < 2:
            raise ContractError(
                f"steps {self.steps} and batch_size {self.batch_size} must be at least 1 and 2"
            )
