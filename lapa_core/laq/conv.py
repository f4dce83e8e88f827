# SPDX-License-Identifier: Apache-2.0
"""The latent action model chosen for the simulator: convolutional, continuous in training, clustered afterwards.

Four numbers, whitened by a batch norm without affine part, are all that passes from the pair to the decoder; a
FiLM decoder adds a residual image to the first frame. K-means on the latents of the training pairs then makes
the codes, so no codebook can collapse during training.

Shapes: B pairs, C channels, H W pixels, D latent numbers, N codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.config import ConvLaqConfig
from lapa_core.laq.kmeans import kmeans

_FAR = 1e6
"""Coordinate of the unused rest of a codebook, when the data hold fewer points than codes."""


class FilmConv(nn.Module):
    """Convolution whose channels are scaled and shifted by a condition."""

    def __init__(self, channels_in: int, channels_out: int, condition_dim: int):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="replicate")
        self.film = nn.Linear(condition_dim, 2 * channels_out)

    def forward(self, x_BCHW: Tensor, condition_BD: Tensor) -> Tensor:
        """Return SiLU((1 + scale) * conv(x) + shift)."""
        scale_BC, shift_BC = self.film(condition_BD).chunk(2, dim=-1)
        return F.silu(
            self.conv(x_BCHW) * (1 + scale_BC[..., None, None]) + shift_BC[..., None, None]
        )


class ConvLaq(LatentActionModel):
    """(x0, x1, x1 - x0) -> 4 numbers -> x1 = x0 + residual(x0, 4 numbers); codes = clusters of the numbers."""

    codebook_ND: Tensor

    def __init__(self, config: ConvLaqConfig):
        super().__init__()
        self.image_px, self.tokens, self.codes = config.image_px, 1, config.codes
        self.noise = config.latent_noise
        w, dim = config.width, config.latent_dim
        self.encoder = nn.Sequential(
            nn.Conv2d(9, w, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * w, 4 * w, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(4 * w * (config.image_px // 8) ** 2, 128),
            nn.SiLU(),
            nn.Linear(128, dim),
        )
        self.whiten = nn.BatchNorm1d(dim, affine=False)
        self.condition = nn.Sequential(
            nn.Linear(dim, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU()
        )
        self.down = nn.Conv2d(3, w, 3, stride=2, padding=1, padding_mode="replicate")
        self.down2 = FilmConv(w, 2 * w, 128)
        self.middle = FilmConv(2 * w, 2 * w, 128)
        self.narrow = nn.Conv2d(2 * w, w, 1)
        self.up = FilmConv(w, w, 128)
        self.residual = nn.Conv2d(w, 12, 3, padding=1, padding_mode="replicate")
        nn.init.zeros_(self.residual.weight)
        self.register_buffer("codebook_ND", torch.zeros(config.codes, dim))

    def latent(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> Tensor:
        """Return the whitened latent (B, D) of each pair."""
        return self.whiten(self.encoder(torch.cat([x0_BCHW, x1_BCHW, x1_BCHW - x0_BCHW], dim=1)))

    def paint(self, x0_BCHW: Tensor, latent_BD: Tensor) -> Tensor:
        """Return the first frame plus the residual that the latent asks for."""
        condition = self.condition(latent_BD)
        half_BCHW = F.silu(self.down(x0_BCHW))
        x_BCHW = self.down2(F.avg_pool2d(half_BCHW, 2), condition)
        x_BCHW = self.middle(x_BCHW, condition)
        x_BCHW = self.up(F.interpolate(self.narrow(x_BCHW), scale_factor=2.0) + half_BCHW, condition)
        return x0_BCHW + F.pixel_shuffle(self.residual(x_BCHW), 2)

    def predict(self, x0_BCHW: Tensor, x1_BCHW: Tensor, start_BCHW: Tensor) -> Tensor:
        """Carry the pair's motion over to `start` through the continuous latent."""
        latent_BD = self.latent(x0_BCHW, x1_BCHW)
        return self.paint(start_BCHW, latent_BD + self.noise * torch.randn_like(latent_BD))

    def encode_pair(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest cluster (B, 1) and the latent (B, 1, D)."""
        latent_BD = self.latent(x0_BCHW, x1_BCHW)
        return torch.cdist(latent_BD, self.codebook_ND).argmin(dim=1, keepdim=True), latent_BD[
            :, None
        ]

    def render(self, x0_BCHW: Tensor, codes_BK: Tensor) -> Tensor:
        """Paint with the cluster centres."""
        return self.paint(x0_BCHW, self.codebook_ND[codes_BK[:, 0]])

    @torch.no_grad()
    def fit_codebook(self, vectors_BKD: Tensor, seed: int) -> None:
        """Cluster the latents of the training pairs."""
        centres_ND = kmeans(vectors_BKD[:, 0].cpu(), self.codes, seed=seed)
        self.codebook_ND[: len(centres_ND)] = centres_ND.to(self.codebook_ND)
        self.codebook_ND[len(centres_ND) :] = _FAR
