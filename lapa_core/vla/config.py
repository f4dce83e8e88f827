# SPDX-License-Identifier: Apache-2.0
"""Configurations of the policy model and of its two training stages. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from lapa_core.errors import ContractError


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """The small FiLM trunk. `width` is the dial; the rest rarely changes."""

    KIND: ClassVar[str] = "film"

    image_px: int = 64
    """Side of the square frames [px]; the feature map is a quarter of it."""
    width: int = 32
    """Channels of the convolutions; a multiple of 4."""
    blocks: int = 1
    """Residual FiLM blocks on the feature map."""
    keypoints: int = 32
    """Maps whose expected positions are read off; a multiple of 4."""
    text_dim: int = 64
    """Width of the instruction's embedding."""
    features: int = 256
    """Width of the output that the heads read."""
    max_words: int = 16
    """Longest instruction [words]; the rest is cut off."""

    def __post_init__(self) -> None:
        if self.image_px % 4:
            raise ContractError(f"image_px is {self.image_px}; it must be a multiple of 4")
        for name in ("width", "keypoints"):
            if (value := getattr(self, name)) % 4:
                raise ContractError(f"{name} is {value}; it must be a multiple of 4")


ModelConfig = TrunkConfig
"""Which family of models, and its sizes."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretrain the trunk to name the latent action that follows a frame. Sees frames, instructions and codes only."""

    data: Path
    """Data set: frames and instructions are read, actions are not."""
    labels: Path
    """Folder that `lapa laq label` made from the same data set."""
    laq: Path | None = None
    """Latent action model that the labels must be of; none takes the labels' word for it."""
    out: Path = Path("outputs/vla_pretrain")
    """Run directory; the finished model is in its `checkpoint/`."""
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    """Model sizes."""
    steps: int = 2500
    """Optimizer steps."""
    batch_size: int = 64
    """Frames per step."""
    learning_rate: float = 2e-3
    """Peak learning rate (AdamW, cosine to zero)."""
    weight_decay: float = 0.01
    """AdamW weight decay."""
    mean_weight: float = 2.0
    """Weight of the distance of the predicted mean code vector, beside the cross-entropy; 0 is off (the paper)."""
    shift_px: int = 3
    """Random shift of the image, up to this many pixels; 0 is off."""
    light: float = 0.15
    """Random change of contrast and brightness; 0 is off."""
    unknown_word_share: float = 0.02
    """Share of words replaced by `<unk>`, so that new words do little harm; 0 is off."""
    max_episodes: int = 0
    """Use only the first episodes; 0 uses all. Must match the labels."""
    seed: int = 0
    """Seed of weights, order, augmentation and dropout."""
    device: str = "cpu"
    """Torch device."""
    save_every: int = 500
    """Steps between resumable states; 0 saves none."""
    log_every: int = 50
    """Steps between rows of metrics."""
    progress: bool = True
    """Show a progress bar."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Train the action head, and gently the trunk, on episodes with actions."""

    data: Path
    """Data set with true actions."""
    init: Path | None = None
    """Pretrained checkpoint; none trains the same trunk from scratch."""
    out: Path = Path("outputs/vla_finetune")
    """Run directory; the finished policy is in its `checkpoint/`."""
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    """Model sizes when there is no `init`; otherwise the checkpoint's sizes are used."""
    episodes: int = 0
    """Labelled episodes to use, drawn with `subset_seed`; 0 uses all."""
    subset_seed: int = 0
    """Seed of the draw: a smaller draw is part of a larger one with the same seed."""
    max_bins: int = 32
    """Most quantile bins of a dimension, at most 256; few labels fill few bins."""
    smoothing_bins: float = 1.0
    """Width of the Gaussian that spreads each label over neighbouring bins [bins]; 0 is off."""
    mean_weight: float = 2.0
    """Weight of the error of the predicted mean, beside the cross-entropy; 0 is off."""
    head_steps: int = 300
    """First steps, in which only the action head learns and the trunk stands still."""
    steps: int = 600
    """All optimizer steps, the head's included."""
    batch_size: int = 64
    """Frames per step."""
    learning_rate: float = 2e-3
    """Peak learning rate of the action head."""
    trunk_factor: float = 0.1
    """Learning rate of the trunk, relative to the head's."""
    freeze_stem: bool = True
    """Keep the vision stem as it was pretrained (the paper freezes its vision encoder); scratch trains it."""
    weight_decay: float = 0.01
    """AdamW weight decay."""
    dropout: float = 0.1
    """Dropout on the features that the head reads."""
    shift_px: int = 3
    """Random shift of the image, up to this many pixels; 0 is off."""
    light: float = 0.15
    """Random change of contrast and brightness; 0 is off."""
    seed: int = 0
    """Seed of the head, order, augmentation and dropout (of everything without `init`)."""
    temperature: float = 0.0
    """Of the sampling with which the policy will be used: 0 takes the likeliest bin; the authors' release has 1."""
    contract: str = "wx250s_sim"
    """Robot contract whose hash and control rate the policy carries."""
    device: str = "cpu"
    """Torch device."""
    save_every: int = 500
    """Steps between resumable states; 0 saves none."""
    log_every: int = 50
    """Steps between rows of metrics."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        if not 0 <= self.head_steps <= self.steps:
            raise ContractError(
                f"head_steps is {self.head_steps}; allowed is 0 to steps ({self.steps})"
            )


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Turn a pretrained model into a policy with no action head: a table from codes to actions."""

    data: Path
    """Data set with true actions."""
    init: Path
    """Pretrained checkpoint."""
    out: Path = Path("outputs/vla_table")
    """Run directory; the finished policy is in its `checkpoint/`."""
    episodes: int = 0
    """Labelled episodes to use, drawn with `subset_seed`; 0 uses all."""
    subset_seed: int = 0
    """Seed of the draw, as in finetuning."""
    max_bins: int = 32
    """Most quantile bins of a dimension: the table's actions are rounded to bin centres like a head's."""
    temperature: float = 0.0
    """Of the sampling with which the policy will be used: 0 takes the likeliest bin; the authors' release has 1."""
    contract: str = "wx250s_sim"
    """Robot contract whose hash and control rate the policy carries."""
    device: str = "cpu"
    """Torch device."""
