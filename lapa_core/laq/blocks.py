# SPDX-License-Identifier: Apache-2.0
"""Transformer blocks of the paper's latent action model.

Shapes: B pairs, T frames (2), P patches (G x G), E width, L any sequence, M context, H heads, D width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NULL_KEYS = 2
ATTENTION_SCALE = 8.0


class PositionBias(nn.Module):
    """Continuous relative position bias (Swin v2): an MLP on the signed log distance of two patches.

    The MLP runs once per distinct distance, (2 G - 1)^2 of them, and not once per pair of patches, G^4.
    """

    distances: Tensor
    which_PP: Tensor

    def __init__(self, heads: int, hidden: int, grid: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Sequential(nn.Linear(2, hidden), nn.LeakyReLU(0.1)),
            nn.Sequential(nn.Linear(hidden, hidden), nn.LeakyReLU(0.1)),
            nn.Linear(hidden, heads),
        )
        apart = torch.arange(1 - grid, grid)
        distances = torch.cartesian_prod(apart, apart).float()
        self.register_buffer(
            "distances", distances.sign() * distances.abs().log1p(), persistent=False
        )
        row, column = torch.arange(grid**2) // grid, torch.arange(grid**2) % grid
        down_PP, right_PP = row[:, None] - row, column[:, None] - column
        which_PP = (down_PP + grid - 1) * (2 * grid - 1) + right_PP + grid - 1
        self.register_buffer("which_PP", which_PP, persistent=False)

    def forward(self) -> Tensor:
        """Return the bias (H, P, P)."""
        return self.net(self.distances)[self.which_PP].permute(2, 0, 1)


class Attention(nn.Module):
    """Cosine-similarity attention without biases; cross-attention has a normed context and two learned null keys."""

    null_kv: nn.Parameter | None

    def __init__(self, dim: int, heads: int, *, cross: bool = False):
        super().__init__()
        self.heads = heads
        self.cross = cross
        self.norm: nn.Module = nn.LayerNorm(dim, bias=False)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)
        self.q_scale = nn.Parameter(torch.ones(dim // heads))
        self.k_scale = nn.Parameter(torch.ones(dim // heads))
        if cross:
            self.context_norm: nn.Module = nn.LayerNorm(dim, bias=False)
            # (H, 2 n, D): key and value of the first null token, then of the second, as in the release
            self.null_kv = nn.Parameter(torch.randn(heads, 2 * NULL_KEYS, dim // heads))

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend from x (B, L, E) to itself or to the context (B, M, E), with a bias (H, L, L) on the logits."""
        normed = self.norm(x)
        source = self.source(x, normed) if context is None else self.context_norm(context)
        q = self._split(self.to_q(normed))
        k, v = (self._split(part) for part in self.to_kv(source).chunk(2, dim=-1))
        if self.cross and self.null_kv is not None:
            null_HND = self.null_kv.to(v.dtype).expand(len(x), -1, -1, -1)
            k = torch.cat([null_HND[:, :, 0::2], k], dim=2)
            v = torch.cat([null_HND[:, :, 1::2], v], dim=2)
        q = (F.normalize(q, dim=-1) * self.q_scale).to(v.dtype)
        k = (F.normalize(k, dim=-1) * self.k_scale).to(v.dtype)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if bias is None else bias.to(v.dtype),
            is_causal=causal,
            scale=ATTENTION_SCALE,
        )
        return self.to_out(out.transpose(1, 2).flatten(2))

    def source(self, x: Tensor, normed: Tensor) -> Tensor:
        """Return what keys and values of self-attention are made of: the normalised input."""
        return normed

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class GatedGelu(nn.Module):
    """value * GELU(gate), of the two halves of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Return half the width."""
        value, gate = x.chunk(2, dim=-1)
        return F.gelu(gate) * value


class FeedForward(nn.Sequential):
    """LayerNorm and a gated GELU with the release's inner width of 8/3.

    Numbered as in the release, whose place 3 is a dropout of 0.
    """

    def __init__(self, dim: int):
        inner = int(4 * (2 / 3) * dim)
        super().__init__(
            nn.LayerNorm(dim),
            nn.Linear(dim, 2 * inner, bias=False),
            GatedGelu(),
            nn.Identity(),
            nn.Linear(inner, dim, bias=False),
        )


def causal_convolution(
    x_BTGGE: Tensor, now: Tensor, before: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Depth-wise 3 x 3 convolution of each frame, plus one of the frame before it.

    That is all a causal 3 x 3 x 3 convolution does with two frames: its third tap along time only sees padding.

    Args:
        x_BTGGE: tokens on their grid.
        now: kernel on the frame itself (E, 1, 3, 3).
        before: kernel on the frame before (E, 1, 3, 3); None for a single frame.
        bias: (E,).
    """
    frames, width = x_BTGGE.shape[1], x_BTGGE.shape[-1]
    x = x_BTGGE.movedim(-1, 2)
    out = F.conv2d(x.flatten(0, 1), now, bias, padding=1, groups=width)
    out = out.unflatten(0, (-1, frames))
    if before is not None and frames > 1:
        last = F.conv2d(x[:, :-1].flatten(0, 1), before, None, padding=1, groups=width)
        out = torch.cat([out[:, :1], out[:, 1:] + last.unflatten(0, (-1, frames - 1))], dim=1)
    return out.movedim(2, -1)


class Position(nn.Module):
    """Position-generating convolution over a frame's patches and those of the frame before."""

    before: nn.Parameter | None

    def __init__(self, dim: int, grid: int, *, frames: int):
        super().__init__()
        self.grid = grid
        self.now = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.before = None
        if frames > 1:
            self.before = nn.Parameter(torch.empty_like(self.now.weight))
            nn.init.kaiming_uniform_(self.before, a=5**0.5)  # as nn.Conv2d does

    def forward(self, x_BTPE: Tensor) -> Tensor:
        """Return the update of x, without the residual."""
        x_BTGGE = x_BTPE.unflatten(2, (self.grid, self.grid))
        out = causal_convolution(x_BTGGE, self.now.weight, self.before, self.now.bias)
        return out.flatten(2, 3)


class SpatialBlock(nn.Module):
    """Position, self-attention over the patches of one frame, optional cross-attention, feed-forward."""

    def __init__(self, dim: int, heads: int, grid: int, *, frames: int, cross: bool = False):
        super().__init__()
        self.position = Position(dim, grid, frames=frames)
        self.attention = Attention(dim, heads)
        self.cross = Attention(dim, heads, cross=True) if cross else None
        self.feed_forward = FeedForward(dim)

    def forward(self, x_BTPE: Tensor, bias: Tensor, context_BKE: Tensor | None = None) -> Tensor:
        """Return updated tokens (B, T, P, E); a context goes with a single frame."""
        frames = x_BTPE.shape[1]
        x = (x_BTPE + self.position(x_BTPE)).flatten(0, 1)
        x = x + self.attention(x, bias=bias)
        if self.cross is not None:
            x = x + self.cross(x, context=context_BKE)
        return (x + self.feed_forward(x)).unflatten(0, (-1, frames))


class TemporalBlock(nn.Module):
    """The same with attention over the frames at one patch, causal as the convolution is."""

    def __init__(self, dim: int, heads: int, grid: int, *, frames: int):
        super().__init__()
        self.position = Position(dim, grid, frames=frames)
        self.attention = Attention(dim, heads)
        self.feed_forward = FeedForward(dim)

    def forward(self, x_BTPE: Tensor) -> Tensor:
        """Return updated tokens (B, T, P, E)."""
        patches = x_BTPE.shape[2]
        x = (x_BTPE + self.position(x_BTPE)).transpose(1, 2).flatten(0, 1)
        x = x + self.attention(x, causal=True)
        x = x + self.feed_forward(x)
        return x.unflatten(0, (-1, patches)).transpose(1, 2)
