# SPDX-License-Identifier: Apache-2.0
"""Configurations of the latent action models and of their training. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lapa_core.errors import ContractError


@dataclass(frozen=True, kw_only=True)
class ConvLaqConfig:
    """The design chosen for the simulator: keypoint differences, a small continuous latent, clustered afterwards."""

    image_px: int = 32
    """Side of the frames [px]; a multiple of 4."""
    width: int = 24
    """Channels of the convolutions, the decoder's deepest have twice as many; a multiple of 4."""
    keypoints: int = 16
    """Keypoints that are read off each frame; a multiple of 4."""
    latent_dim: int = 3
    """Numbers in the continuous latent: few, so that only the motion fits through."""
    codes: int = 64
    """Clusters of the latent (k-means), which are the codes."""

    def __post_init__(self) -> None:
        for name in ("image_px", "width", "keypoints"):
            if (value := getattr(self, name)) % 4:
                raise ContractError(f"{name} is {value}; it must be a multiple of 4")
        if self.codes < 2:
            raise ContractError(f"codes is {self.codes}; at least 2 are needed")


@dataclass(frozen=True, kw_only=True)
class PatchLaqConfig:
    """The paper's layout (section 3.1, appendix A): patch transformer, 2 x 2 tokens, NSVQ."""

    image_px: int = 32
    """Side of the frames [px] (paper: 256)."""
    patch_px: int = 4
    """Side of a patch [px] (paper: 32); image_px / patch_px must be 8, which the 2 x 2 token head assumes."""
    dim: int = 128
    """Width of the transformer (paper: 1024)."""
    heads: int = 4
    """Attention heads (paper: 16)."""
    depth: int = 2
    """Layers of each of the spatial encoder, temporal encoder and decoder (paper: 8)."""
    code_dim: int = 32
    """Width of a code (paper: 32)."""
    codes: int = 8
    """Codes of the one codebook that all four tokens share (paper: 8)."""

    def __post_init__(self) -> None:
        if self.image_px != 8 * self.patch_px:
            raise ContractError(
                f"image_px is {self.image_px}; it must be 8 patches of {self.patch_px} px"
            )
        if self.dim % self.heads:
            raise ContractError(f"dim {self.dim} is no multiple of heads {self.heads}")


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
