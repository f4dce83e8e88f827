# SPDX-License-Identifier: Apache-2.0
"""The paper's latent action model: patch transformer, a few latent tokens, a quantiser, a cross-attending decoder.

Layout of the paper (section 3.1, appendix A) at any size. What differs from the authors' release, and why (facts,
section 1.6; `lapa_core.laq.release` has the release itself):

- Keys and values of self-attention come from the normalised input, as queries do. The release leaves it
  unnormalised, an oversight of its ancestor (quirk Q4).
- The convolution of the temporal encoder runs over the patches as they lie. The release misreads (place, time)
  as (time, place), so its neighbours are not neighbours (Q2).
- Attention over time is causal, as the paper says: the first frame's features cannot see the second (Q3).
- Decoder token j is code j. The release mixes the codes' channels across tokens (Q1).
- Convolutions have the two taps along time that two frames can use, not three.
- Counts, revival and noise of the quantiser: `lapa_core.laq.quantise`.

Shapes: B pairs, T frames (2), P patches (G x G), E width, K tokens, D code width, C channels, H W pixels.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapa_core.errors import LapaError
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.blocks import PositionBias, SpatialBlock, TemporalBlock
from lapa_core.laq.config import PatchLaqConfig
from lapa_core.laq.quantise import build_quantiser
from lapa_core.laq.targets import FrozenFeatures

FRAMES = 2


def token_pooling(config: PatchLaqConfig) -> nn.Sequential:
    """Two convolutions from the patch grid to the token grid; the release's for 1, 2 and 4 tokens of 8 x 8 patches.

    The first halves the grid where that leaves room for the tokens, the second covers what is left without padding.
    """
    rows, columns = config.token_grid
    stride = 2 if (config.grid + 1) // 2 >= rows else 1
    side = (config.grid - 1) // stride + 1
    dim = config.code_dim
    return nn.Sequential(
        nn.Conv2d(dim, dim, 3, stride=stride, padding=1),
        nn.ReLU(),
        nn.Conv2d(dim, dim, (side - rows + 1, side - columns + 1)),
    )


class PatchDesign(LatentActionModel):
    """What the corrected and the released network have in common."""

    def __init__(self, config: PatchLaqConfig):
        super().__init__()
        self.image_px, self.patch_px, self.grid = config.image_px, config.patch_px, config.grid
        self.tokens, self.codes = config.code_tokens, config.codes

    @abstractmethod
    def motion(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> Tensor:
        """Return the unquantised tokens (B, K, D): pooled features of the second frame minus those of the first."""

    @abstractmethod
    def paint(self, x0_BCHW: Tensor, vectors_BKD: Tensor) -> Tensor:
        """Decode the prediction from the first frame and the tokens' vectors."""

    def predict(self, x0_BCHW: Tensor, x1_BCHW: Tensor, start_BCHW: Tensor) -> Tensor:
        """Carry the pair's motion over to `start` through the quantiser, in its training way."""
        return self.paint(start_BCHW, self.quantiser(self.motion(x0_BCHW, x1_BCHW)).vectors_BKD)

    def encode_pair(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes (B, K), row by row over the token grid, and the vectors before quantisation."""
        vectors_BKD = self.motion(x0_BCHW, x1_BCHW)
        return self.quantiser.assign(vectors_BKD), vectors_BKD

    def render(self, x0_BCHW: Tensor, codes_BK: Tensor) -> Tensor:
        """Paint with the codes' vectors.

        Raises:
            LapaError: the model predicts features, of which no image can be made.
        """
        if not self.paints:
            raise LapaError(
                "this latent action model predicts DINOv2 features, not pixels, and cannot render frames; "
                "train one with target='pixels' to see what its codes do"
            )
        return self.paint(x0_BCHW, self.quantiser.vectors(codes_BK))

    def patches(self, images: Tensor) -> Tensor:
        """(..., 3, S, S) -> (..., P, 3 * patch * patch), the order of `pixel_shuffle` and of the release."""
        return F.pixel_unshuffle(images, self.patch_px).flatten(-2).transpose(-1, -2)

    def unpatch(self, patches_BPX: Tensor, factor: int) -> Tensor:
        """(B, P, C * factor * factor) -> (B, C, G * factor, G * factor)."""
        grid_BXGG = patches_BPX.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return F.pixel_shuffle(grid_BXGG, factor)


class PatchLaq(PatchDesign):
    """The corrected network."""

    def __init__(self, config: PatchLaqConfig):
        super().__init__(config)
        dim, heads, grid = config.dim, config.heads, config.grid
        pixels = 3 * config.patch_px**2
        self.features = FrozenFeatures(config) if config.target == "dinov2" else None
        self.paints = self.features is None
        self.embed = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, dim), nn.LayerNorm(dim))
        self.bias = PositionBias(heads, dim, grid)
        self.spatial = nn.ModuleList(
            SpatialBlock(dim, heads, grid, frames=FRAMES) for _ in range(config.spatial_depth)
        )
        self.spatial_norm = nn.LayerNorm(dim, bias=False)
        self.temporal = nn.ModuleList(
            TemporalBlock(dim, heads, grid, frames=FRAMES) for _ in range(config.temporal_depth)
        )
        self.temporal_norm = nn.LayerNorm(dim, bias=False)
        self.narrow = nn.Linear(dim, config.code_dim)
        self.pool = token_pooling(config)
        self.quantiser = build_quantiser(
            config.quantiser, codes=config.codes, dim=config.code_dim, tokens=config.code_tokens
        )
        self.widen = nn.Linear(config.code_dim, dim)
        self.decoder = nn.ModuleList(
            SpatialBlock(dim, heads, grid, frames=1, cross=True)
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(dim, bias=False)
        self.factor = config.patch_px if self.features is None else self.features.factor
        channels = 3 if self.features is None else self.features.channels
        self.to_target = nn.Linear(dim, channels * self.factor**2)

    def motion(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> Tensor:
        """Return the unquantised tokens (B, K, D): pooled features of the second frame minus those of the first."""
        x_BTPE = self.embed(self.patches(torch.stack([x0_BCHW, x1_BCHW], dim=1)))
        bias = self.bias()
        for block in self.spatial:
            x_BTPE = block(x_BTPE, bias)
        x_BTPE = self.spatial_norm(x_BTPE)
        for block in self.temporal:
            x_BTPE = block(x_BTPE)
        narrow = self.narrow(self.temporal_norm(x_BTPE)).flatten(0, 1).transpose(1, 2)
        pooled = self.pool(narrow.unflatten(2, (self.grid, self.grid))).flatten(2).transpose(1, 2)
        first_BKD, second_BKD = pooled.unflatten(0, (-1, FRAMES)).unbind(1)
        return second_BKD - first_BKD

    def paint(self, x0_BCHW: Tensor, vectors_BKD: Tensor) -> Tensor:
        """Decode from the first frame's patches, cut off from their gradient as in the paper."""
        x_B1PE = self.embed(self.patches(x0_BCHW)).detach().unsqueeze(1)
        context_BKE, bias = self.widen(vectors_BKD), self.bias()
        for block in self.decoder:
            x_B1PE = block(x_B1PE, bias, context_BKE)
        return self.unpatch(self.to_target(self.decoder_norm(x_B1PE[:, 0])), self.factor)

    def target(self, x_BCHW: Tensor) -> Tensor:
        """Return the frames themselves, or their features (B, C, G', G') in the frozen tower."""
        return x_BCHW if self.features is None else self.features(x_BCHW)
