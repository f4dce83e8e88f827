# SPDX-License-Identifier: Apache-2.0
"""The authors' released network, quirks and names included, so that their `laq_openx.pt` loads, encodes and decodes.

It shares with the corrected model what is the same, and repeats four faults that its weights were trained with
(facts, section 1.6): codes scrambled over the decoder's tokens (Q1), a temporal convolution over misread axes (Q2),
temporal attention that is not causal (Q3), keys and values of the unnormalised input (Q4). Members that nothing
uses are kept, because the state dict holds them: the norm of a context that self-attention does not have, its zero
null keys, and the first tap along time of the convolutions.

Training, counting and revival are ours. Shapes as in `lapa_core.laq.model`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapa_core.errors import CheckpointError
from lapa_core.laq.blocks import Attention, FeedForward, PositionBias, causal_convolution
from lapa_core.laq.config import PatchLaqConfig
from lapa_core.laq.model import FRAMES, PatchDesign, token_pooling
from lapa_core.laq.quantise.nsvq import Nsvq


class ReleaseNorm(nn.Module):
    """LayerNorm whose shift is a buffer of zeros."""

    beta: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)


class ReleaseAttention(Attention):
    """Attention with the release's members."""

    def __init__(self, dim: int, heads: int, *, cross: bool = False):
        super().__init__(dim, heads, cross=cross)
        self.norm, self.context_norm = ReleaseNorm(dim), ReleaseNorm(dim)
        if not cross:
            self.null_kv = nn.Parameter(torch.empty(heads, 0, dim // heads))

    def source(self, x: Tensor, normed: Tensor) -> Tensor:
        """Q4: keys and values of self-attention are made of the unnormalised input."""
        return x


class ReleasePosition(nn.Module):
    """A causal 3 x 3 x 3 convolution that takes whatever it gets for (B, T, P, E)."""

    def __init__(self, dim: int, grid: int):
        super().__init__()
        self.grid = grid
        self.dsconv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Return the update of x, in the shape of x."""
        x_BTGGE = x.reshape(-1, frames, self.grid, self.grid, x.shape[-1])
        weight = self.dsconv.weight
        return causal_convolution(
            x_BTGGE, weight[:, :, 2], weight[:, :, 1], self.dsconv.bias
        ).reshape(x.shape)


class ReleaseLayer(nn.ModuleDict):
    """Position, self-attention, cross-attention (the decoder's) and feed-forward, numbered."""

    def __init__(self, dim: int, heads: int, grid: int, *, cross: bool):
        parts: dict[str, nn.Module] = {
            "0": ReleasePosition(dim, grid),
            "1": ReleaseAttention(dim, heads),
            "3": FeedForward(dim),
        }
        if cross:
            parts["2"] = ReleaseAttention(dim, heads, cross=True)
        super().__init__(dict(sorted(parts.items())))

    def forward(
        self, x: Tensor, frames: int, bias: Tensor | None, context: Tensor | None
    ) -> Tensor:
        """Return updated sequences (any, L, E)."""
        x = x + self["0"](x, frames)
        x = x + self["1"](x, bias=bias)
        if context is not None:
            x = x + self["2"](x, context=context)
        return x + self["3"](x)


class ReleaseTransformer(nn.Module):
    """Layers, and a norm at the end."""

    def __init__(self, dim: int, heads: int, grid: int, depth: int, *, cross: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(
            ReleaseLayer(dim, heads, grid, cross=cross) for _ in range(depth)
        )
        self.norm_out = ReleaseNorm(dim)

    def forward(
        self, x: Tensor, frames: int, bias: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Return updated sequences (any, L, E), which hold `frames` frames per pair in whatever order."""
        for layer in self.layers:
            x = layer(x, frames, bias, context)
        return self.norm_out(x)


class ReleaseNsvq(Nsvq):
    """NSVQ with the layers around it, which the release keeps in the same module; its counts are not saved there."""

    def __init__(self, config: PatchLaqConfig):
        super().__init__(
            codes=config.codes, dim=config.code_dim, tokens=config.code_tokens, save_counts=False
        )
        self.project_in = nn.Linear(config.dim, config.code_dim)
        self.project_out = nn.Linear(config.code_dim, config.dim)
        self.cnn_encoder = token_pooling(config)

    def narrow(self, x_BPE: Tensor, grid: int) -> Tensor:
        """Pool the patches of one frame to tokens (B, K, D)."""
        x_BDP = self.project_in(x_BPE).transpose(1, 2)
        return self.cnn_encoder(x_BDP.unflatten(2, (grid, grid))).flatten(2).transpose(1, 2)

    def widen(self, vectors_BKD: Tensor) -> Tensor:
        """Q1: read (K, D) as (D, K), so that with 4 tokens channels 8 i to 8 i + 7 of every one are of code i."""
        misread_BDK = vectors_BKD.contiguous().view(-1, self.dim, vectors_BKD.shape[1])
        return self.project_out(misread_BDK.transpose(1, 2))


class ReleaseLaq(PatchDesign):
    """The released network."""

    def __init__(self, config: PatchLaqConfig):
        super().__init__(config)
        dim, heads, grid = config.dim, config.heads, config.grid
        pixels = 3 * config.patch_px**2
        self.to_patch_emb_first_frame = nn.Sequential(
            nn.Identity(), nn.LayerNorm(pixels), nn.Linear(pixels, dim), nn.LayerNorm(dim)
        )
        self.spatial_rel_pos_bias = PositionBias(heads, dim, grid)
        self.enc_spatial_transformer = ReleaseTransformer(dim, heads, grid, config.spatial_depth)
        self.enc_temporal_transformer = ReleaseTransformer(dim, heads, grid, config.temporal_depth)
        self.vq = ReleaseNsvq(config)
        self.dec_spatial_transformer = ReleaseTransformer(
            dim, heads, grid, config.decoder_depth, cross=True
        )
        self.to_pixels_first_frame = nn.Sequential(nn.Linear(dim, pixels))

    @property
    def quantiser(self) -> Nsvq:  # type: ignore[override]
        """The release's name for it is `vq`."""
        return self.vq

    def motion(self, x0_BCHW: Tensor, x1_BCHW: Tensor) -> Tensor:
        """Return the unquantised tokens (B, K, D)."""
        frames = torch.stack([x0_BCHW, x1_BCHW], dim=1).flatten(0, 1)
        x = self.to_patch_emb_first_frame(self.patches(frames))
        x = self.enc_spatial_transformer(x, FRAMES, self.spatial_rel_pos_bias())
        # Q2: from here on sequences are (place, time), which the convolution takes for (time, place);
        # Q3: and attention over time is not causal
        x = x.unflatten(0, (-1, FRAMES)).transpose(1, 2).flatten(0, 1)
        x = self.enc_temporal_transformer(x, FRAMES)
        x_BPTE = x.unflatten(0, (-1, self.grid**2))
        first, second = (self.vq.narrow(frame, self.grid) for frame in x_BPTE.unbind(2))
        return second - first

    def paint(self, x0_BCHW: Tensor, vectors_BKD: Tensor) -> Tensor:
        """Decode from the first frame's patches, cut off from their gradient."""
        x_BPE = self.to_patch_emb_first_frame(self.patches(x0_BCHW)).detach()
        x_BPE = self.dec_spatial_transformer(
            x_BPE, 1, self.spatial_rel_pos_bias(), self.vq.widen(vectors_BKD)
        )
        return self.unpatch(self.to_pixels_first_frame(x_BPE), self.patch_px)


def without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the `module.` that DistributedDataParallel puts before every name."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def check_release_state(state: dict[str, Tensor], model: ReleaseLaq, origin: str) -> None:
    """Compare names and shapes with those of the network.

    Raises:
        CheckpointError: names every tensor that is missing, surplus or of another shape.
    """
    needed = model.state_dict()
    faults = [f"missing {name}" for name in needed if name not in state]
    faults += [f"surplus {name}" for name in state if name not in needed]
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in needed.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if faults:
        raise CheckpointError(
            f"{origin} is not the released latent action model: {'; '.join(faults)}. Give the authors' "
            "laq_openx.pt, or set the sizes that the file was trained with"
        )


def load_release(model: ReleaseLaq, state: dict[str, Tensor], origin: str = "the state") -> None:
    """Load a state dict of the release strictly.

    Raises:
        CheckpointError: a tensor is missing, surplus or of another shape.
    """
    state = without_prefix(state)
    check_release_state(state, model, origin)
    model.load_state_dict(state, strict=True)
