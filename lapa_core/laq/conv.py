# SPDX-License-Identifier: Apache-2.0
"""The latent action model chosen for the simulator: keypoint differences, continuous in training, clustered afterwards.

Both frames go through one encoder that reads keypoints off them, and only their *difference* passes on, as in the
paper (d = enc(x1) - enc(x0)): a displacement can be said so, a place cannot. Three whitened numbers of it reach the
decoder, which adds a residual image to the first frame. K-means on the latents of the training pairs then makes
the codes, so no codebook can collapse during training; other quantisers can be chosen instead.

Measured on the simulator's videos (one seed, R2 of one-hot codes to the true displacement): an encoder that sees
(x0, x1, x1 - x0) learns to name the *place* where the arm ends, 0.29 after 1200 steps, and 0.69 to 0.79 with shifted
copies that make places useless; keypoint differences 0.85 after 400 steps. Four numbers instead of three: 0.80.

Shapes: B pairs, C channels, H W pixels, D latent numbers, N codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapa_core.keypoints import GROUPS, Keypoints
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.config import ConvLaqConfig
from lapa_core.laq.quantise import build_quantiser

_CONDITION_DIM = 128


class FilmConv(nn.Module):
    """Normalised convolution whose channels are scaled and shifted by a condition."""

    def __init__(self, channels_in: int, channels_out: int, condition_dim: int):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm = nn.GroupNorm(GROUPS, channels_out)
        self.film = nn.Linear(condition_dim, 2 * channels_out)

    def forward(self, x_BCHW: Tensor, condition_BD: Tensor) -> Tensor:
        """Return SiLU((1 + scale) * norm(conv(x)) + shift)."""
        scale_BC, shift_BC = self.film(condition_BD).chunk(2, dim=-1)
        x_BCHW = self.norm(self.conv(x_BCHW))
        return F.silu(x_BCHW * (1 + scale_BC[..., None, None]) + shift_BC[..., None, None])


class ConvLaq(LatentActionModel):
    """Keypoints(x1) - keypoints(x0) -> 3 numbers -> x1 = x0 + residual(x0, 3 numbers); codes = their clusters."""

    def __init__(self, config: ConvLaqConfig):
        super().__init__()
        self.image_px, self.tokens, self.codes = config.image_px, 1, config.codes
        w, dim = config.width, config.latent_dim
        self.encoder = nn.Sequential(
            nn.Conv2d(3, w, 4, stride=2, padding=1),
            nn.GroupNorm(GROUPS, w),
            nn.SiLU(),
            nn.Conv2d(w, w, 3, padding=1),
            nn.GroupNorm(GROUPS, w),
            nn.SiLU(),
            nn.Conv2d(w, w, 3, padding=1),
            nn.GroupNorm(GROUPS, w),
            nn.SiLU(),
            Keypoints(w, config.keypoints, config.image_px // 2),
        )
        self.project = nn.Linear(2 * config.keypoints, dim, bias=False)
        self.whiten = nn.BatchNorm1d(dim, affine=False)
        self.condition = nn.Sequential(
            nn.Linear(dim, _CONDITION_DIM),
            nn.SiLU(),
            nn.Linear(_CONDITION_DIM, _CONDITION_DIM),
            nn.SiLU(),
        )
        self.down = nn.Conv2d(3, w, 3, stride=2, padding=1)
        self.down2 = FilmConv(w, 2 * w, _CONDITION_DIM)
        self.middle = FilmConv(2 * w, 2 * w, _CONDITION_DIM)
        self.narrow = nn.Conv2d(2 * w, w, 1)
        self.up = FilmConv(w, w, _CONDITION_DIM)
        self.residual = nn.Conv2d(w, 12, 3, padding=1)
        for parameter in self.residual.parameters():
            nn.init.zeros_(parameter)
        self.quantiser = build_quantiser(config.quantiser, codes=config.codes, dim=dim, tokens=1)
        self.register_load_state_dict_pre_hook(_rename_codebook)

    def latent(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> Tensor:
        """Return the whitened latent (B, D) of each pair; it changes its sign when the pair is reversed."""
        before, after = self.encoder(2.0 * torch.cat([x0_BCHW, x1_BCHW]) - 1.0).chunk(2)
        return self.whiten(self.project(after - before))

    def paint(self, x0_BCHW: Tensor, latent_BD: Tensor) -> Tensor:
        """Return the first frame plus the residual that the latent asks for."""
        condition = self.condition(latent_BD)
        half_BCHW = F.silu(self.down(x0_BCHW))
        x_BCHW = self.down2(F.avg_pool2d(half_BCHW, 2), condition)
        x_BCHW = self.middle(x_BCHW, condition)
        x_BCHW = self.up(
            F.interpolate(self.narrow(x_BCHW), scale_factor=2.0) + half_BCHW, condition
        )
        return x0_BCHW + F.pixel_shuffle(self.residual(x_BCHW), 2)

    def predict(self, x0_BCHW: Tensor, x1_BCHW: Tensor, start_BCHW: Tensor) -> Tensor:
        """Carry the pair's motion over to `start` through the latent, continuous unless the quantiser says else."""
        latent_B1D = self.latent(x0_BCHW, x1_BCHW).unsqueeze(1)
        return self.paint(start_BCHW, self.quantiser(latent_B1D).vectors_BKD[:, 0])

    def encode_pair(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the code (B, 1) and the latent (B, 1, D)."""
        latent_B1D = self.latent(x0_BCHW, x1_BCHW).unsqueeze(1)
        return self.quantiser.assign(latent_B1D), latent_B1D

    def render(self, x0_BCHW: Tensor, codes_BK: Tensor) -> Tensor:
        """Paint with the codes' vectors."""
        return self.paint(x0_BCHW, self.quantiser.vectors(codes_BK)[:, 0])


def _rename_codebook(
    model: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object
) -> None:
    """Checkpoints from before quantisers were options hold the clusters in the model itself."""
    if (old := f"{prefix}codebook_ND") in state:
        state[f"{prefix}quantiser.codebook_ND"] = state.pop(old)
