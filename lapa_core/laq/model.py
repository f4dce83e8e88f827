# SPDX-License-Identifier: Apache-2.0
"""The paper's latent action model: patch transformer, 2 x 2 latent tokens, NSVQ, cross-attending decoder.

Layout of the paper (section 3.1, appendix A) at any width. Four corrections to the authors' release (facts,
section 1.6): the temporal encoder is causal, as the paper says, so the first frame's features do not see the
second; its convolution runs along time and not over a scrambled grid; keys and values come from the
normalised input; and decoder token j is code j (the release scrambles the four).

Shapes: B pairs, T frames (2), P patches (8 x 8), E width, K tokens (2 x 2), D code width, H heads.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.config import PatchLaqConfig
from lapa_core.laq.nsvq import Nsvq

GRID = 8
NULL_KEYS = 2
ATTENTION_SCALE = 8.0
REPLACE_MIN_SHARE = 0.1


class PositionBias(nn.Module):
    """Continuous relative position bias (Swin v2): an MLP on the signed log distance of two patches."""

    offsets: Tensor

    def __init__(self, heads: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, heads),
        )
        axis = torch.arange(GRID)
        position_P2 = (
            torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2).float()
        )
        offset_PP2 = position_P2[:, None] - position_P2[None]
        self.register_buffer(
            "offsets", offset_PP2.sign() * offset_PP2.abs().log1p(), persistent=False
        )

    def forward(self) -> Tensor:
        """Return the bias (H, P, P)."""
        return self.net(self.offsets).permute(2, 0, 1)


class Attention(nn.Module):
    """Cosine-similarity attention without biases; cross-attention has two learned null keys."""

    def __init__(self, dim: int, heads: int, *, cross: bool = False):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, bias=False)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)
        self.q_scale = nn.Parameter(torch.ones(dim // heads))
        self.k_scale = nn.Parameter(torch.ones(dim // heads))
        self.null_kv = (
            nn.Parameter(torch.randn(2, heads, NULL_KEYS, dim // heads)) if cross else None
        )

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend from x (B, L, E) to itself or to the context (B, M, E)."""
        x = self.norm(x)
        q = self._split(self.to_q(x))
        k, v = (
            self._split(part)
            for part in self.to_kv(x if context is None else context).chunk(2, dim=-1)
        )
        if self.null_kv is not None:
            null_k, null_v = (part.expand(len(x), -1, -1, -1) for part in self.null_kv)
            k, v = torch.cat([null_k, k], dim=2), torch.cat([null_v, v], dim=2)
        q, k = F.normalize(q, dim=-1) * self.q_scale, F.normalize(k, dim=-1) * self.k_scale
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, is_causal=causal, scale=ATTENTION_SCALE
        )
        return self.to_out(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """LayerNorm and a gated GELU with the release's inner width of 8/3."""

    def __init__(self, dim: int):
        super().__init__()
        inner = int(dim * 8 / 3)
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the update of x, without the residual."""
        value, gate = self.up(self.norm(x)).chunk(2, dim=-1)
        return self.down(F.gelu(gate) * value)


class SpatialBlock(nn.Module):
    """Position-generating convolution, self-attention over the patches, optional cross-attention, feed-forward."""

    def __init__(self, dim: int, heads: int, *, cross: bool = False):
        super().__init__()
        self.position = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.attention = Attention(dim, heads)
        self.cross = Attention(dim, heads, cross=True) if cross else None
        self.feed_forward = FeedForward(dim)

    def forward(self, x_BPE: Tensor, bias: Tensor, context_BKE: Tensor | None = None) -> Tensor:
        """Return updated patches (B, P, E)."""
        grid = x_BPE.transpose(1, 2).unflatten(2, (GRID, GRID))
        x_BPE = x_BPE + self.position(grid).flatten(2).transpose(1, 2)
        x_BPE = x_BPE + self.attention(x_BPE, bias=bias)
        if self.cross is not None:
            x_BPE = x_BPE + self.cross(x_BPE, context=context_BKE)
        return x_BPE + self.feed_forward(x_BPE)


class TemporalBlock(nn.Module):
    """The same along time at one patch, causal in both the convolution and the attention."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.position = nn.Conv1d(dim, dim, 3, groups=dim)
        self.attention = Attention(dim, heads)
        self.feed_forward = FeedForward(dim)

    def forward(self, x_BTE: Tensor) -> Tensor:
        """Return updated tokens (B * P, T, E)."""
        x_BTE = x_BTE + self.position(F.pad(x_BTE.transpose(1, 2), (2, 0))).transpose(1, 2)
        x_BTE = x_BTE + self.attention(x_BTE, causal=True)
        return x_BTE + self.feed_forward(x_BTE)


class PatchLaq(LatentActionModel):
    """Frame pair -> 2 x 2 tokens of N codes -> later frame, through transformers."""

    def __init__(self, config: PatchLaqConfig):
        super().__init__()
        self.image_px, self.tokens, self.codes = config.image_px, 4, config.codes
        self.patch_px = config.patch_px
        dim, heads, pixels = config.dim, config.heads, 3 * config.patch_px**2
        self.embed = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, dim), nn.LayerNorm(dim))
        self.bias = PositionBias(heads, dim)
        self.spatial = nn.ModuleList(SpatialBlock(dim, heads) for _ in range(config.spatial_depth))
        self.spatial_norm = nn.LayerNorm(dim, bias=False)
        self.temporal = nn.ModuleList(
            TemporalBlock(dim, heads) for _ in range(config.temporal_depth)
        )
        self.temporal_norm = nn.LayerNorm(dim, bias=False)
        self.narrow = nn.Linear(dim, config.code_dim)
        self.pool = nn.Sequential(
            nn.Conv2d(config.code_dim, config.code_dim, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.code_dim, config.code_dim, 3),
        )
        self.quantiser = Nsvq(config.codes, config.code_dim)
        self.widen = nn.Linear(config.code_dim, dim)
        self.decoder = nn.ModuleList(
            SpatialBlock(dim, heads, cross=True) for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(dim, bias=False)
        self.to_pixels = nn.Linear(dim, pixels)

    def motion(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> Tensor:
        """Return the unquantised tokens (B, K, D): pooled features of the second frame minus those of the first."""
        x_BTPE = self.embed(self._patches(torch.stack([x0_BCHW, x1_BCHW], dim=1)))
        batch, frames = x_BTPE.shape[:2]
        x = x_BTPE.flatten(0, 1)
        bias = self.bias()
        for block in self.spatial:
            x = block(x, bias)
        x = self.spatial_norm(x).unflatten(0, (batch, frames)).transpose(1, 2).flatten(0, 1)
        for block in self.temporal:
            x = block(x)
        x = self.narrow(self.temporal_norm(x)).unflatten(0, (batch, -1)).permute(0, 2, 3, 1)
        pooled = self.pool(x.flatten(0, 1).unflatten(2, (GRID, GRID))).flatten(2).transpose(1, 2)
        first_BKD, second_BKD = pooled.unflatten(0, (batch, frames)).unbind(1)
        return second_BKD - first_BKD

    def paint(self, x0_BCHW: Tensor, vectors_BKD: Tensor) -> Tensor:
        """Decode from the first frame's patches, cut off from their gradient as in the paper."""
        x_BPE = self.embed(self._patches(x0_BCHW)).detach()
        context_BKE, bias = self.widen(vectors_BKD), self.bias()
        for block in self.decoder:
            x_BPE = block(x_BPE, bias, context_BKE)
        pixels = self.to_pixels(self.decoder_norm(x_BPE))
        return F.pixel_shuffle(pixels.transpose(1, 2).unflatten(2, (GRID, GRID)), self.patch_px)

    def predict(self, x0_BCHW: Tensor, x1_BCHW: Tensor, start_BCHW: Tensor) -> Tensor:
        """Carry the pair's motion over to `start` through the quantiser (noise-substituted in training)."""
        return self.paint(start_BCHW, self.quantiser(self.motion(x0_BCHW, x1_BCHW)).vectors_BKD)

    def encode_pair(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes (B, 4), row-major over the 2 x 2 grid, and the vectors before quantisation."""
        vectors_BKD = self.motion(x0_BCHW, x1_BCHW)
        return self.quantiser(vectors_BKD).codes_BK, vectors_BKD

    def render(self, x0_BCHW: Tensor, codes_BK: Tensor) -> Tensor:
        """Paint with the codes' vectors."""
        return self.paint(x0_BCHW, self.quantiser.codebook_ND[codes_BK])

    def centres(self) -> NDArray[np.float32]:
        """Return the codebook."""
        return self.quantiser.codebook_ND.detach().cpu().numpy()

    def after_step(self, step: int, total_steps: int) -> dict[str, float]:
        """Replace unused codes every 10, then 100 steps, during the first half of training."""
        every = 10 if step < 100 else 100
        if step == 0 or step % every or step > total_steps // 2:
            return {}
        return {"codes_replaced": float(self.quantiser.replace_unused(REPLACE_MIN_SHARE))}

    def _patches(self, images: Tensor) -> Tensor:
        """(..., 3, S, S) -> (..., P, 3 * patch * patch), the order of `pixel_shuffle`."""
        return F.pixel_unshuffle(images, self.patch_px).flatten(-2).transpose(-1, -2)
