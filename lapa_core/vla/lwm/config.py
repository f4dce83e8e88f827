# SPDX-License-Identifier: Apache-2.0
"""Sizes of the LWM / LAPA-7B model and of its VQGAN. Imports no torch.

The defaults are the released model's (facts/lapa.md 2.1, 2.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lapa_core.errors import ContractError
from lapa_core.vla.bounds import at_least

END_MARKS = 2
"""Vision ids behind the codes: end of frame, then end of vision."""


@dataclass(frozen=True, kw_only=True)
class VqganConfig:
    """The frame tokenizer: a VQGAN without attention that halves the sides once per level but the last."""

    channels: tuple[int, ...] = (128, 256, 256, 512, 768)
    """Channels of the levels, from the full resolution down; multiples of `groups`."""
    blocks: int = 2
    """Residual blocks per level of the encoder; the decoder has one more."""
    code_dim: int = 64
    """Length of a code vector."""
    codes: int = 8192
    """Vectors in the codebook."""
    groups: int = 32
    """Groups of the group norms."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.channels or any(n < 1 or n % self.groups for n in self.channels):
            raise ContractError(
                f"channels are {self.channels}; needed are positive multiples of groups ({self.groups})"
            )
        at_least(self, blocks=1, code_dim=1, codes=1)

    @property
    def cell_px(self) -> int:
        """Side of the square of pixels that one id stands for [px]."""
        return 2 ** (len(self.channels) - 1)


@dataclass(frozen=True, kw_only=True)
class LwmConfig:
    """Sizes of the LWM model; `lapa_7b` is the released one."""

    KIND: ClassVar[str] = "lwm"

    vocab: int = 32000
    """Text ids: the pieces of the sentencepiece model."""
    vision_vocab: int = 8448
    """Vision ids: the VQGAN's codes, two end marks, spare ones."""
    hidden: int = 4096
    """Width of the residual stream."""
    inter: int = 11008
    """Width inside the feed-forward layers."""
    layers: int = 32
    """Decoder layers."""
    heads: int = 32
    """Attention heads; `hidden / heads` must be even."""
    rms_eps: float = 1e-6
    """Added to the mean square in the norms."""
    rope_theta: float = 5e7
    """Base of the rotary positions' wave lengths."""
    rope_bf16: bool = True
    """Round the rotary angles, sines and cosines to bfloat16 as the release does; its weights learned with that."""
    residual_fp32: bool = True
    """Keep the residual stream in float32 between bfloat16 layers, as the release does over the prompt."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """In which the layers compute over float32 weights, as in training; others compute in their own type."""
    max_text: int = 128
    """Longest prompt up to and with `<vision>` [tokens]; shorter ones are padded on the left."""
    image_px: int = 256
    """Side of the square frame [px]."""
    action_vocab: int = 256
    """Rows of the action embedding and head, shared by the seven dimensions; at least the bins of the largest."""
    vqgan: VqganConfig = field(default_factory=VqganConfig)
    """The frame tokenizer."""

    def __post_init__(self) -> None:
        at_least(
            self, vocab=1, hidden=1, inter=1, layers=1, heads=1, max_text=1, action_vocab=1, rope_theta=1
        )  # fmt: skip
        if self.dtype not in ("bfloat16", "float32"):
            raise ContractError(f"dtype is {self.dtype!r}; allowed are 'bfloat16' and 'float32'")
        if self.hidden % (2 * self.heads):
            raise ContractError(
                f"hidden is {self.hidden}; with {self.heads} heads it must be a multiple of {2 * self.heads}"
            )
        if self.image_px < 1 or self.image_px % self.vqgan.cell_px:
            raise ContractError(
                f"image_px is {self.image_px}; this VQGAN needs a multiple of {self.vqgan.cell_px}"
            )
        at_least(self, vision_vocab=self.vqgan.codes + END_MARKS)

    @property
    def frame_tokens(self) -> int:
        """Ids of one frame."""
        return (self.image_px // self.vqgan.cell_px) ** 2

    @property
    def end_of_vision(self) -> int:
        """The vision id behind the last frame; 8193 in the release."""
        return self.vqgan.codes + 1

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


LWM_DEBUG = LwmConfig(
    vocab=512,
    vision_vocab=40,
    hidden=32,
    inter=64,
    layers=2,
    heads=2,
    dtype="float32",
    max_text=96,
    image_px=16,
    vqgan=VqganConfig(channels=(8, 8, 16), blocks=1, code_dim=4, codes=32, groups=4),
)
"""Everything of the released model at toy widths."""

LWM_PRESETS: dict[str, LwmConfig] = {"lapa_7b": LwmConfig(), "lwm_debug": LWM_DEBUG}
