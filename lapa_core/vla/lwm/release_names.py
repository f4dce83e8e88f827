# SPDX-License-Identifier: Apache-2.0
"""Where each of our tensors lies in the authors' files: key, layer of the stacked axis, and change of layout.

Source: facts/lapa.md 2.2 and 2.8. The names of the VQGAN's tensors follow Flax's automatic naming; those facts were not
read off the file. Flax stores a linear layer as (in, out) and a convolution as (height, width, in, out), and rotates
the pairs (2i, 2i + 1) of a head's channels where Transformers' Llama rotates (i, i + half): `rotary` moves the even
channels of every head to its first half.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor

from lapa_core.errors import CheckpointError
from lapa_core.vla.lwm.config import LwmConfig, VqganConfig

Layout = Literal["same", "linear", "rotary", "conv"]
STACK = ("transformer", "h", "scan_decoder")
"""Key of the decoder layers, whose arrays are stacked along axis 0."""


@dataclass(frozen=True, kw_only=True)
class ReleaseTensor:
    """One tensor of ours and its place in the release."""

    name: str
    """In the state dict of `LwmModel` (of its `vqgan.model` for the VQGAN)."""
    shape: tuple[int, ...]
    """Ours."""
    key: tuple[str, ...]
    """In the release's tree, below `params`."""
    layer: int | None = None
    """Row of the release's stacked array; none: the array is not stacked."""
    layout: Layout = "same"
    """How the array becomes ours."""

    @property
    def parameters(self) -> int:
        """Numbers that it holds."""
        return prod(self.shape)

    @property
    def release_shape(self) -> tuple[int, ...]:
        """Shape of the release's array, without the stacked axis."""
        if self.layout in ("linear", "rotary"):
            return self.shape[::-1]
        if self.layout == "conv":
            out, into, height, width = self.shape
            return height, width, into, out
        return self.shape

    def convert(self, array: Tensor, heads: int) -> Tensor:
        """Return the release's array (`release_shape`; one layer's of a stacked array) in our layout.

        Args:
            array: of any dtype; the result is contiguous and may share its memory.
            heads: attention heads, which `rotary` needs.

        Raises:
            CheckpointError: the array has another shape.
        """
        if tuple(array.shape) != self.release_shape:
            raise CheckpointError(
                f"{'/'.join(self.key)} has shape {tuple(array.shape)}, not {self.release_shape}; "
                "the file is damaged or of another model"
            )
        if self.layout == "conv":
            return array.permute(3, 2, 0, 1).contiguous()
        if self.layout == "linear":
            return array.T.contiguous()
        if self.layout == "rotary":
            pairs = array.T.unflatten(0, (heads, -1, 2))
            return pairs.transpose(1, 2).flatten(0, 2).contiguous()
        return array.contiguous()


def release_tensors(
    config: LwmConfig, latent_codes: int | None, *, action: bool = False
) -> Iterator[ReleaseTensor]:
    """Yield the place of every parameter of the language model, in the order of our state dict.

    Args:
        config: sizes.
        latent_codes: rows of the latent embedding and head (8 in the release); none: the file has none.
        action: whether the file has an action embedding and head (finetuned ones do).
    """
    spaces = [
        ("text", "wte", "lm_head", config.vocab),
        ("vision", "vte", "vision_head", config.vision_vocab),
    ]
    if latent_codes is not None:
        spaces.append(("latent", "dte", "delta_head", latent_codes))
    if action:
        spaces.append(("action", "ate", "action_head", config.action_vocab))
    for ours, table, _, rows in spaces:
        yield ReleaseTensor(
            name=f"tables.{ours}.weight",
            shape=(rows, config.hidden),
            key=("transformer", table, "embedding"),
        )
    for layer in range(config.layers):
        yield from _layer_tensors(config, layer)
    yield ReleaseTensor(
        name="norm.weight", shape=(config.hidden,), key=("transformer", "ln_f", "kernel")
    )
    for ours, _, head, rows in spaces:
        yield ReleaseTensor(
            name=f"heads.{ours}.weight",
            shape=(rows, config.hidden),
            key=(head, "kernel"),
            layout="linear",
        )


def _layer_tensors(config: LwmConfig, layer: int) -> Iterator[ReleaseTensor]:
    wide, inter = config.hidden, config.inter
    table: tuple[tuple[str, tuple[int, ...], str, Layout], ...] = (
        ("input_layernorm", (wide,), "attention_norm", "same"),
        ("self_attn.q_proj", (wide, wide), "attention/wq", "rotary"),
        ("self_attn.k_proj", (wide, wide), "attention/wk", "rotary"),
        ("self_attn.v_proj", (wide, wide), "attention/wv", "linear"),
        ("self_attn.o_proj", (wide, wide), "attention/wo", "linear"),
        ("post_attention_layernorm", (wide,), "ffn_norm", "same"),
        ("mlp.gate_proj", (inter, wide), "feed_forward/w1", "linear"),
        ("mlp.up_proj", (inter, wide), "feed_forward/w3", "linear"),
        ("mlp.down_proj", (wide, inter), "feed_forward/w2", "linear"),
    )
    for ours, shape, theirs, layout in table:
        yield ReleaseTensor(
            name=f"layers.{layer}.{ours}.weight",
            shape=shape,
            key=(*STACK, *theirs.split("/"), "kernel"),
            layer=layer,
            layout=layout,
        )


def vqgan_tensors(config: VqganConfig) -> Iterator[ReleaseTensor]:
    """Yield the place of every tensor of the VQGAN in the release's second file."""
    widths, last = config.channels, len(config.channels) - 1
    yield from _conv("encoder.conv_in", "encoder/Conv_0", 3, widths[0])
    before = widths[0]
    for level, width in enumerate(widths):
        ours, theirs = f"encoder.down_blocks.{level}", f"encoder/DownsamplingBlock_{level}"
        for block in range(config.blocks):
            yield from _resnet(
                f"{ours}.resnets.{block}", f"{theirs}/ResnetBlock_{block}", before, width
            )
            before = width
        if level < last:
            yield from _conv(
                f"{ours}.downsamplers.0.conv", f"{theirs}/Downsample_0/Conv_0", width, width
            )
    yield from _ends("encoder", before, config.code_dim)
    for name in ("quant_conv", "post_quant_conv"):
        yield from _conv(name, name, config.code_dim, config.code_dim, side=1)
    yield ReleaseTensor(
        name="quantize.embedding.weight",
        shape=(config.codes, config.code_dim),
        key=("quantize", "embeddings"),
    )
    yield from _conv("decoder.conv_in", "decoder/Conv_0", config.code_dim, widths[-1])
    for level, width in enumerate(reversed(widths)):
        ours, theirs = f"decoder.up_blocks.{level}", f"decoder/UpsamplingBlock_{level}"
        for block in range(config.blocks + 1):
            yield from _resnet(
                f"{ours}.resnets.{block}", f"{theirs}/ResnetBlock_{block}", before, width
            )
            before = width
        if level < last:
            yield from _conv(
                f"{ours}.upsamplers.0.conv", f"{theirs}/Upsample_0/Conv_0", width, width
            )
    yield from _ends("decoder", widths[-1], 3, outer=widths[0])


def _ends(half: str, middle: int, out: int, outer: int | None = None) -> Iterator[ReleaseTensor]:
    """Yield the middle block and the last norm and convolution of the encoder or the decoder."""
    for block in range(2):
        yield from _resnet(
            f"{half}.mid_block.resnets.{block}",
            f"{half}/MidBlock_0/ResnetBlock_{block}",
            middle,
            middle,
        )
    yield from _norm(f"{half}.conv_norm_out", f"{half}/GroupNorm_0", outer or middle)
    yield from _conv(f"{half}.conv_out", f"{half}/Conv_1", outer or middle, out)


def _resnet(ours: str, theirs: str, into: int, out: int) -> Iterator[ReleaseTensor]:
    yield from _norm(f"{ours}.norm1", f"{theirs}/GroupNorm_0", into)
    yield from _conv(f"{ours}.conv1", f"{theirs}/Conv_0", into, out)
    yield from _norm(f"{ours}.norm2", f"{theirs}/GroupNorm_1", out)
    yield from _conv(f"{ours}.conv2", f"{theirs}/Conv_1", out, out)
    if into != out:
        yield from _conv(f"{ours}.conv_shortcut", f"{theirs}/Conv_2", into, out, side=1)


def _conv(ours: str, theirs: str, into: int, out: int, side: int = 3) -> Iterator[ReleaseTensor]:
    key = tuple(theirs.split("/"))
    yield ReleaseTensor(
        name=f"{ours}.weight", shape=(out, into, side, side), key=(*key, "kernel"), layout="conv"
    )
    yield ReleaseTensor(name=f"{ours}.bias", shape=(out,), key=(*key, "bias"))


def _norm(ours: str, theirs: str, width: int) -> Iterator[ReleaseTensor]:
    key = tuple(theirs.split("/"))
    yield ReleaseTensor(name=f"{ours}.weight", shape=(width,), key=(*key, "scale"))
    yield ReleaseTensor(name=f"{ours}.bias", shape=(width,), key=(*key, "bias"))
