# SPDX-License-Identifier: Apache-2.0
"""Configuration of the training of a latent action model. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lapa_core.errors import ContractError
from lapa_core.laq.config import ConvLaqConfig, PatchLaqConfig


@dataclass(frozen=True, kw_only=True)
class LaqTrainConfig:
    """Train a latent action model on the frames of a data set, in one process or under torchrun in many."""

    data: Path
    """LeRobot data set, RLDS directory, folder of videos, an index of `lapa data index`, or a mixture (*.yaml)."""
    out: Path = Path("outputs/laq")
    """Run directory; the finished model is in its `checkpoint/`. A run that was stopped goes on where it was saved."""
    model: ConvLaqConfig | PatchLaqConfig = field(default_factory=ConvLaqConfig)
    """Which design, and its sizes."""
    init: Path | None = None
    """Checkpoint of the same design and sizes to start from, trained or imported; none starts from random weights."""
    gap_s: float = 0.2
    """Time between the two frames of a pair [s] (paper: 0.6 for robots, 2.4 for people). A mixture has its own, and
    that of its heaviest corpus is then the model's, at which it labels and is measured when nothing else is said."""
    gap_range_s: tuple[float, float] | None = None
    """Draw the gap of each training pair uniformly between these two [s]; labels are still made at gap_s."""
    steps: int = 900
    """Optimizer steps."""
    batch_size: int = 128
    """Pairs per step, over all processes together."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over time: a short warm-up and a cosine to zero, or the same throughout (the paper)."""
    beta2: float = 0.999
    """AdamW's decay of the squared gradient (paper: 0.99)."""
    weight_decay: float = 1e-4
    """AdamW weight decay (paper: 0)."""
    shift_px: int = 0
    """Shift the pair that is encoded and the one that is decoded, each on its own, by up to this many pixels: a latent
    then cannot say *where* the arm ends, only how it moved. 0 is off, as in the paper."""
    crop: float = 0.0
    """Cut a random square out of each of the two pairs, up to this share of its side smaller, and scale it back."""
    light: float = 0.0
    """Change contrast and brightness of each of the two pairs by up to this share."""
    colour: float = 0.0
    """Scale each colour channel of each of the two pairs by up to this share."""
    labelled: Path | None = None
    """Data set with actions: a linear head learns to read them off its latents, beside the reconstruction. Without it
    the training cannot reach any action."""
    labelled_episodes: int = 0
    """Use only the first labelled episodes; 0 uses all."""
    labelled_batch_size: int = 32
    """Labelled pairs per step, over all processes together."""
    action_weight: float = 0.05
    """Weight of the head's mean squared error, in units of the actions' standard deviations."""
    max_episodes: int = 0
    """Use only the first episodes, or clips of each corpus; 0 uses all."""
    seed: int = 0
    """Seed of weights, order, augmentation and noise."""
    device: str = "cpu"
    """Torch device; `cuda` is each process's own under torchrun."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 multiplies matrices in bfloat16; weights, optimizer and losses stay in float32."""
    compile: bool = False
    """Compile the model: a minute or so at first, fewer and larger kernels afterwards."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """With several processes (`torchrun --nproc-per-node 8 -m lapa_core laq train paper ...`): ddp keeps the whole
    model in each, fsdp2 divides weights and optimizer among them. Both compute the same."""
    workers: int = 4
    """Processes that decode video, for an index or a mixture."""
    save_every: int = 500
    """Steps between resumable states; 0 saves none."""
    log_every: int = 50
    """Steps between rows of metrics."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        if not (self.gap_s > 0 and math.isfinite(self.gap_s)):
            raise ContractError(f"gap_s is {self.gap_s}; it must be positive seconds")
        if self.gap_range_s is not None:
            shortest, longest = self.gap_range_s
            if not (0 < shortest <= longest and math.isfinite(longest)):
                raise ContractError(
                    f"gap_range_s is {shortest} to {longest}; give two positive times in rising order"
                )
        least = {"steps": 1, "log_every": 1, "batch_size": 2, "labelled_batch_size": 2}
        for name, lowest in least.items():
            if (value := getattr(self, name)) < lowest:
                raise ContractError(f"{name} is {value}; at least {lowest} is needed")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ContractError(
                f"learning_rate is {self.learning_rate}; it must be a positive number"
            )
        for name in (
            "max_episodes",
            "labelled_episodes",
            "save_every",
            "shift_px",
            "light",
            "colour",
            "action_weight",
            "weight_decay",
            "workers",
        ):
            if (value := getattr(self, name)) < 0:
                raise ContractError(f"{name} is {value}; it cannot be negative")
        for name in ("crop", "light", "colour", "beta2"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ContractError(f"{name} is {value}; allowed is 0 to below 1")
        if self.labelled is None and self.labelled_episodes:
            raise ContractError(
                f"labelled_episodes is {self.labelled_episodes} but there is no labelled data set; give --labelled"
            )
