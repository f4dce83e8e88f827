# SPDX-License-Identifier: Apache-2.0
"""The frame tokenizer: the release's VQGAN is diffusers' `VQModel` with the settings below.

What was compared (facts/lapa.md 2.2): 146,244,675 parameters, 58.7 M of them in the encoder and 87.0 M in the decoder;
group norms with an epsilon of 1e-6; downsampling that pads on the right and at the bottom only; two residual
blocks in the middle and no attention anywhere; 1 x 1 convolutions around the codebook.

Shapes: B frames, V ids of a frame, D length of a code vector, N codes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor, nn

from lapa_core.vla.lwm.config import VqganConfig

AT_ONCE = 16
"""Frames that are encoded together: the first level of the released sizes holds 34 MB per frame in every tensor."""


def make_vq_model(config: VqganConfig) -> VQModel:
    """Return diffusers' model with fresh weights."""
    levels = len(config.channels)
    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=config.blocks,
        latent_channels=config.code_dim,
        vq_embed_dim=config.code_dim,
        num_vq_embeddings=config.codes,
        norm_num_groups=config.groups,
        mid_block_add_attention=False,
    )


class Vqgan(nn.Module):
    """Frames to ids and back. Its weights are never trained, and stay float32 whatever the model is cast to."""

    def __init__(self, config: VqganConfig):
        super().__init__()
        self.config = config
        self.model = make_vq_model(config)
        self.requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Vqgan:
        def keep_type(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keep_type, recurse)
        return self

    @torch.no_grad()
    def ids(self, image_BCHW: Tensor) -> Tensor:
        """Return the nearest codes (B, V), int64, row by row, of images in [0, 1]."""
        return torch.cat([self._ids(part) for part in image_BCHW.split(AT_ONCE)])

    def _ids(self, image_BCHW: Tensor) -> Tensor:
        with torch.autocast(image_BCHW.device.type, enabled=False):
            latents_BDHW = self.model.encode(image_BCHW.float() * 2.0 - 1.0).latents
            codes_ND = self.model.quantize.embedding.weight
            latents_BVD = latents_BDHW.flatten(2).transpose(1, 2)
            distance_BVN = codes_ND.square().sum(-1) - 2.0 * latents_BVD @ codes_ND.T
            return distance_BVN.argmin(dim=-1)

    @torch.no_grad()
    def images(self, ids_BV: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) in [0, 1] that the ids of square frames stand for."""
        side = round(ids_BV.shape[1] ** 0.5)
        with torch.autocast(ids_BV.device.type, enabled=False):
            codes_BVD = self.model.quantize.embedding(ids_BV)
            codes_BDHW = codes_BVD.transpose(1, 2).unflatten(2, (side, side))
            pixels = self.model.decode(codes_BDHW, force_not_quantize=True).sample
            return (pixels.clamp(-1.0, 1.0) + 1.0) / 2.0
