# SPDX-License-Identifier: Apache-2.0
"""Configurations of the latent action models. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lapa_core.errors import ContractError

QuantiserName = Literal["nsvq", "vq_ema", "fsq", "none"]
"""How continuous tokens become codes: see `lapa_core.laq.quantise`."""


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
    """Codes of the one latent token: clusters (k-means) with the quantiser `none`, else the codebook's size."""
    quantiser: QuantiserName = "none"
    """What makes the codes: `none` clusters the continuous latents after training, the others quantise in training."""

    def __post_init__(self) -> None:
        for name in ("image_px", "width", "keypoints"):
            if (value := getattr(self, name)) < 4 or value % 4:
                raise ContractError(f"{name} is {value}; it must be a multiple of 4")
        if self.latent_dim < 1:
            raise ContractError(f"latent_dim is {self.latent_dim}; it must be at least 1")
        if self.codes < 2:
            raise ContractError(f"codes is {self.codes}; at least 2 are needed")


@dataclass(frozen=True, kw_only=True)
class PatchLaqConfig:
    """The paper's layout (section 3.1, appendix A) at its sizes: patch transformer, 4 tokens of 8 codes, NSVQ."""

    image_px: int = 256
    """Side of the frames [px]; a multiple of patch_px."""
    patch_px: int = 32
    """Side of a patch [px]."""
    dim: int = 1024
    """Width of the transformers; a multiple of heads."""
    heads: int = 16
    """Attention heads."""
    spatial_depth: int = 8
    """Layers of the encoder over the patches of one frame."""
    temporal_depth: int = 8
    """Layers of the encoder over the two frames at one patch."""
    decoder_depth: int = 8
    """Layers of the decoder, which attends to the latent tokens."""
    code_dim: int = 32
    """Width of a latent token."""
    codes: int = 8
    """Codes of the one codebook that all tokens share."""
    code_tokens: int = 4
    """Latent tokens per pair, read row by row off a grid: 4 is 2 x 2, 2 is 2 x 1, 8 is 4 x 2."""
    quantiser: QuantiserName = "nsvq"
    """What makes the codes: noise substitution (the paper), VQ with moving averages, finite scalars, or `none`
    (continuous in training, clustered afterwards)."""
    target: Literal["pixels", "dinov2"] = "pixels"
    """What the decoder predicts of the later frame: its pixels, or its features in a frozen DINOv2."""
    dinov2: str = "facebook/dinov2-base"
    """DINOv2 model for the target `dinov2`: an id of the Hugging Face hub, or a local folder."""
    dinov2_revision: str = "main"
    """Branch, tag or commit of that model; give a commit for a run that others shall repeat. Unused for a folder."""
    dinov2_dim: int = 768
    """Width of that model's features: small 384, base 768, large 1024, giant 1536; checked when it is loaded."""
    compat: Literal["corrected", "release"] = "corrected"
    """`release` is the authors' published network with its names, shapes and quirks, for their weights."""

    def __post_init__(self) -> None:
        sizes = ("patch_px", "dim", "code_dim", "spatial_depth", "temporal_depth", "decoder_depth")
        for name in sizes:
            if (value := getattr(self, name)) < 1:
                raise ContractError(f"{name} is {value}; it must be at least 1")
        if self.image_px < 1 or self.image_px % self.patch_px:
            raise ContractError(
                f"image_px is {self.image_px}; it must be a multiple of patch_px {self.patch_px}"
            )
        if self.heads < 1 or self.dim % self.heads:
            raise ContractError(f"dim {self.dim} is no multiple of heads {self.heads}")
        if self.codes < 2:
            raise ContractError(f"codes is {self.codes}; at least 2 are needed")
        if self.code_tokens < 1 or max(self.token_grid) > self.grid:
            raise ContractError(
                f"code_tokens is {self.code_tokens}; it must be rows x columns with at most "
                f"{self.grid} of each, the patches per side"
            )
        if self.compat == "release":
            self._check_release()

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.image_px // self.patch_px

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of the latent tokens: the squarest grid, taller than wide."""
        columns = max(c for c in range(1, self.code_tokens + 1) if _fits(self.code_tokens, c))
        return self.code_tokens // columns, columns

    def _check_release(self) -> None:
        """The release exists in one layout; its widths may differ (tests), its structure not."""
        needed = {"quantiser": "nsvq", "target": "pixels", "code_tokens": 4}
        for name, value in needed.items():
            if (given := getattr(self, name)) != value:
                raise ContractError(
                    f"{name} is {given!r}, but compat='release' only exists with {value!r}; "
                    "choose compat='corrected' for the options"
                )
        if self.grid != 8:
            raise ContractError(
                f"compat='release' has 8 x 8 patches; image_px {self.image_px} / patch_px "
                f"{self.patch_px} makes {self.grid}"
            )


def _fits(count: int, columns: int) -> bool:
    return count % columns == 0 and columns * columns <= count
