# SPDX-License-Identifier: Apache-2.0
"""The small vision-language trunk: a FiLM convolutional network with spatial softmax under text-made queries.

A task such as "push the red block left" needs to know *where* two things are. So the instruction asks the
feature map with a few queries, and what leaves the map is where each query looked (expected coordinates) and
what it saw there. facts/sim.md, round 2, has the measurement that chose this over a small ViT.

Shapes: B frames, C channels, H W cells of the map, L words, T text width, M attention maps, F features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapa_core.vla.config import TrunkConfig
from lapa_core.vla.words import PAD


class TextEncoder(nn.Module):
    """Word embeddings through a GRU; order matters ("red to blue" is not "blue to red")."""

    def __init__(self, words: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(words, dim, padding_idx=PAD)
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, words_BL: Tensor) -> Tensor:
        """Return the state after the last word (B, T); equal instructions of a batch are encoded once."""
        unique_UL, where_B = words_BL.unique(dim=0, return_inverse=True)
        states_ULT, _ = self.gru(self.embedding(unique_UL))
        last_U = (unique_UL != PAD).sum(dim=1) - 1
        return states_ULT[torch.arange(len(unique_UL), device=last_U.device), last_U][where_B]


class FilmBlock(nn.Module):
    """Residual convolution whose output is scaled and shifted by the text."""

    def __init__(self, channels: int, text_dim: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(text_dim, 2 * channels)

    def forward(self, x_BCHW: Tensor, text_BT: Tensor) -> Tensor:
        """Return x + SiLU((1 + scale) * conv(x) + shift)."""
        scale_BC, shift_BC = self.film(text_BT).chunk(2, dim=-1)
        return x_BCHW + F.silu(
            self.conv(x_BCHW) * (1 + scale_BC[..., None, None]) + shift_BC[..., None, None]
        )


class QueriedSoftmax(nn.Module):
    """Spatial softmax of M maps, each the match of a text-made query with the feature map."""

    coordinates_P2: Tensor

    def __init__(self, config: TrunkConfig):
        super().__init__()
        self.maps, side = config.attention_maps, config.image_px // 4
        self.query = nn.Linear(config.text_dim, config.attention_maps * config.width)
        self.key = nn.Conv2d(config.width, config.width, 1)
        self.value = nn.Conv2d(config.width, config.value_dim, 1)
        axis = torch.linspace(-1.0, 1.0, side)
        grid_2HW = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
        self.register_buffer("coordinates_P2", grid_2HW.flatten(1).T.contiguous(), persistent=False)

    def forward(self, x_BCHW: Tensor, text_BT: Tensor) -> Tensor:
        """Return (B, M * (2 + value_dim)): where each query looked, in -1 to 1, and what it saw."""
        query_BMC = self.query(text_BT).unflatten(1, (self.maps, -1))
        key_BCP = self.key(x_BCHW).flatten(2)
        weight_BMP = (query_BMC @ key_BCP / key_BCP.shape[1] ** 0.5).softmax(dim=-1)
        seen_BMV = weight_BMP @ self.value(x_BCHW).flatten(2).transpose(1, 2)
        return torch.cat([weight_BMP @ self.coordinates_P2, seen_BMV], dim=-1).flatten(1)


class FilmTrunk(nn.Module):
    """Frame and instruction -> features."""

    def __init__(self, config: TrunkConfig, words: int):
        super().__init__()
        width, side = config.width, config.image_px // 4
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 2, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width // 2, width, 4, stride=2, padding=1),
        )
        self.position = nn.Parameter(0.02 * torch.randn(width, side, side))
        self.text = TextEncoder(words, config.text_dim)
        self.blocks = nn.ModuleList(FilmBlock(width, config.text_dim) for _ in range(config.blocks))
        self.look = QueriedSoftmax(config)
        looked = config.attention_maps * (2 + config.value_dim)
        self.mix = nn.Sequential(
            nn.Linear(looked + config.text_dim, config.features),
            nn.SiLU(),
            nn.Linear(config.features, config.features),
            nn.SiLU(),
        )

    def forward(self, image_BCHW: Tensor, words_BL: Tensor) -> Tensor:
        """Return features (B, F) of images in [0, 1] and padded word indices."""
        text_BT = self.text(words_BL)
        x_BCHW = self.stem(2.0 * image_BCHW - 1.0) + self.position
        for block in self.blocks:
            x_BCHW = block(x_BCHW, text_BT)
        return self.mix(torch.cat([self.look(x_BCHW, text_BT), text_BT], dim=-1))
