# SPDX-License-Identifier: Apache-2.0
"""Configurations of the latent action models. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

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
