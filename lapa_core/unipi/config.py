# SPDX-License-Identifier: Apache-2.0
"""Configurations of the video diffusion model, its training, and the policy made of it. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from lapa_core.errors import ContractError
from lapa_core.vla.bounds import at_least

GROUPS = 8
"""Groups of the U-Net's normalisations."""


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Sizes of the video diffusion model."""

    image_px: int = 32
    """Side of the square frames [px]; a multiple of patch_px times a halving for each width after the first."""
    frames: int = 4
    """Future frames of a plan."""
    patch_px: int = 4
    """Side of the patches that the U-Net sees as one place [px]."""
    widths: tuple[int, ...] = (48, 64)
    """Channels of the U-Net at each resolution; multiples of 8."""
    layers: int = 1
    """Residual blocks at each resolution."""
    trunk_width: int = 32
    """Channels of the trunk (`lapa_core.vla.trunk`) that reads the current frame and the words; a multiple of 4."""
    trunk_blocks: int = 2
    """Its residual blocks."""
    keypoints: int = 32
    """Its maps whose expected positions are read off; a multiple of 4."""
    features: int = 128
    """Numbers in which it tells the U-Net what shall happen."""
    text_dim: int = 64
    """Width of its word embeddings."""
    max_words: int = 16
    """Words of an instruction that are read."""
    noise_steps: int = 1000
    """Steps of the noising process that training draws from."""
    signal: float = 0.25
    """Standard deviation of the change that is noised, where the noise's is 1. Most pixels of a change are zero and
    the others large, so that at 1 they stand out of the noise and most steps have nothing to decide (Chen, 2023)."""

    def __post_init__(self) -> None:
        at_least(
            self, image_px=4, frames=1, patch_px=1, layers=1, trunk_width=4, trunk_blocks=0, keypoints=4, features=1,
            text_dim=1, max_words=1, noise_steps=2,
        )  # fmt: skip
        if not 0.0 < self.signal < math.inf:
            raise ContractError(f"signal is {self.signal}; it must be a positive number")
        for name in ("image_px", "trunk_width", "keypoints"):
            if (value := getattr(self, name)) % 4:
                raise ContractError(f"{name} is {value}; it must be a multiple of 4")
        if not self.widths or any(width < GROUPS or width % GROUPS for width in self.widths):
            raise ContractError(
                f"widths is {self.widths}; allowed are one or more multiples of {GROUPS}"
            )
        factor = self.patch_px * 2 ** (len(self.widths) - 1)
        if self.image_px % factor:
            raise ContractError(
                f"image_px is {self.image_px}; patch_px {self.patch_px} and {len(self.widths)} widths need a multiple "
                f"of {factor}"
            )


@dataclass(frozen=True, kw_only=True)
class UnipiTrainConfig:
    """Train the video diffusion model on videos and their instructions; actions are not looked at."""

    data: Path
    """Data set of episodes: LeRobot, RLDS, a folder of videos."""
    out: Path = Path("outputs/unipi")
    """Run directory; the finished model is in its `checkpoint/`, and `samples.png` beside it shows what it plans. A run
    that was stopped goes on where it was saved."""
    model: VideoConfig = field(default_factory=VideoConfig)
    """Sizes; with `init` they are the checkpoint's."""
    init: Path | None = None
    """Checkpoint of `lapa unipi train` to go on from, for the finetuning on labelled episodes; none starts fresh."""
    episodes: int = 0
    """Episodes to use, drawn with `subset_seed` as in `lapa vla finetune`; 0 uses all."""
    subset_seed: int = 0
    """Seed of the draw: a smaller draw is part of a larger one with the same seed."""
    held_out: int = 0
    """Of these episodes, so many at the end are kept from the training, to measure and to show the model; 0 trains on
    all, and measures and shows it on episodes that it has seen."""
    period_s: float = 0.2
    """Time between the frames of a plan [s]: the arm's control period."""
    steps: int = 8000
    """Optimizer steps."""
    batch_size: int = 32
    """Windows of frames per step."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """AdamW weight decay."""
    shift_px: int = 0
    """Shift all frames of a window together by up to this many pixels; 0 is off."""
    sampling_steps: int = 4
    """Denoising steps (DDIM) of a plan; the policy made of the checkpoint takes as many."""
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
        at_least(
            self, episodes=0, held_out=0, steps=1, batch_size=2, weight_decay=0, shift_px=0, sampling_steps=1,
            save_every=0, log_every=1,
        )  # fmt: skip
        if self.sampling_steps > self.model.noise_steps:
            raise ContractError(
                f"sampling_steps is {self.sampling_steps}; allowed are 1 to {self.model.noise_steps}"
            )
        for name in ("learning_rate", "period_s"):
            if not 0.0 < (value := getattr(self, name)) < math.inf:
                raise ContractError(f"{name} is {value}; it must be a positive number")


@dataclass(frozen=True, kw_only=True)
class UnipiPolicyConfig:
    """Join a video diffusion model and an inverse dynamics model to a policy."""

    video: Path
    """Checkpoint of `lapa unipi train`."""
    idm: Path
    """Checkpoint of `lapa idm train`, for frames of the same size."""
    out: Path = Path("outputs/unipi_policy")
    """The policy is in its `checkpoint/`."""
    replan_every: int = 2
    """Actions that are executed before the next plan (paper: 2)."""
    sampling_steps: int = 0
    """Denoising steps (DDIM) of a plan; 0 takes those that the video model was measured with."""
    temperature: float = 1.0
    """Standard deviation of the noise that a plan begins with; 0 plans the same at the same place."""

    def __post_init__(self) -> None:
        at_least(self, replan_every=1, sampling_steps=0, temperature=0)


_DEBUG = UnipiTrainConfig(
    data=Path("data/recorded450"),
    out=Path("outputs/unipi_debug"),
    model=VideoConfig(
        widths=(8, 16),
        trunk_width=8,
        trunk_blocks=1,
        keypoints=4,
        features=16,
        text_dim=8,
        noise_steps=50,
    ),
    episodes=12,
    held_out=4,
    steps=20,
    batch_size=8,
    log_every=5,
)

UNIPI_TRAIN = {
    "sim": UnipiTrainConfig(
        data=Path("data/videos_default"),
        out=Path("outputs/unipi_sim"),
        model=VideoConfig(widths=(48, 64)),
        held_out=300,
        steps=8000,
        learning_rate=2e-3,
    ),
    "sim_finetune": UnipiTrainConfig(
        data=Path("data/recorded450"),
        init=Path("outputs/unipi_sim/checkpoint"),
        out=Path("outputs/unipi_sim_finetuned"),
        steps=500,
        learning_rate=2e-4,
    ),
    "debug": _DEBUG,
    "debug_finetune": replace(
        _DEBUG,
        init=Path("outputs/unipi_debug/checkpoint"),
        out=Path("outputs/unipi_debug_finetuned"),
        held_out=0,
    ),
}
"""`lapa unipi train <name>`."""

UNIPI_TRAIN_NOTES = {
    "sim": "the simulator's videos at 32 px; a quarter of an hour on one core",
    "sim_finetune": "sim, trained on with the labelled episodes",
    "debug": "sim in seconds, on recorded episodes",
    "debug_finetune": "sim_finetune in seconds",
}
"""One line for each."""
