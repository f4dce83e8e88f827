# SPDX-License-Identifier: Apache-2.0
"""What differs between the families: prompt, image tokens, positions, and where the parts of the network are.

Shapes: B sequences, L prefix positions, N images, P tokens of one image, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from lapa_core.errors import CheckpointError, ContractError
from lapa_core.vla.hf.images import square_side, to_patches

QUESTION = "What action should the robot take to `{instruction}`?"
"""As in the release, whose back-ticks are literal (facts/lapa.md 2.3), with a question mark."""


class Family(ABC):
    """One family of backbones, as its configuration describes it."""

    full_prefix = False
    """Whether prompt positions see each other in both directions."""

    def __init__(self, backbone: Any):
        """Take the configuration of the whole vision-language model."""
        self.backbone = backbone
        self.vision = backbone.vision_config
        self.image_id = int(backbone.image_token_id)

    @abstractmethod
    def side_tokens(self, image_px: int) -> int:
        """Return how many tokens one side of a square frame makes.

        Raises:
            ContractError: the vision tower does not take frames of this side.
        """

    @abstractmethod
    def prompt(self, question: str, images: list[str], bos: str) -> str:
        """Return the text before the answer.

        Args:
            question: what is asked.
            images: per camera, the image token as often as the frame has tokens.
            bos: the tokenizer's beginning of a sequence.
        """

    @abstractmethod
    def image_token(self, tokenizer: Any) -> str:
        """Return the text of one image token."""

    @abstractmethod
    def language(self, network: Any) -> Any:
        """Return the language model inside the network."""

    @abstractmethod
    def vision_parts(self, network: Any) -> list[nn.Module]:
        """Return the vision tower and its projector."""

    @abstractmethod
    def vision_blocks(self, network: Any) -> list[nn.Module]:
        """Return the layers of the vision tower."""

    @abstractmethod
    def features(self, network: Any, pixels_NCHW: Tensor) -> Tensor:
        """Return (N, P, D), what takes the place of the image tokens."""

    def positions(self, ids_BL: Tensor, visible_BL: Tensor, side: int) -> Tensor:
        """Return the rotary positions, (B, L) or (B, axes, L); `side` is that of a frame in tokens."""
        return (visible_BL.long().cumsum(dim=1) - 1).clamp(min=0)

    def _refuse(self, image_px: int, allowed: str) -> ContractError:
        return ContractError(
            f"image_px is {image_px}; the vision tower of this {self.backbone.model_type} takes {allowed}"
        )


class Idefics(Family):
    """Idefics3 and SmolVLM: one global image without splitting, pixel shuffle, Llama."""

    def side_tokens(self, image_px: int) -> int:
        """As `Family`; sides up to the tower's own, whose positions are fractions of the side."""
        patch, most = square_side(self.vision.patch_size), square_side(self.vision.image_size)
        patches, scale = image_px // patch, int(self.backbone.scale_factor)
        whole = image_px % patch == 0 or image_px == most
        if not whole or patches % scale or not 0 < image_px <= most:
            raise self._refuse(image_px, f"{most}, or a multiple of {patch * scale} below it")
        return patches // scale

    def prompt(self, question: str, images: list[str], bos: str) -> str:
        """As `Family`; the chat format of both, in which the colon touches a leading image."""
        mark = "<fake_token_around_image>"
        frames = "".join(f"{mark}<global-img>{image}{mark}" for image in images)
        return f"{bos}User:{frames}{question}<end_of_utterance>\nAssistant:"

    def image_token(self, tokenizer: Any) -> str:
        """As `Family`."""
        return "<image>"

    def language(self, network: Any) -> Any:
        """As `Family`."""
        return network.text_model

    def vision_parts(self, network: Any) -> list[nn.Module]:
        """As `Family`."""
        return [network.vision_model, network.connector]

    def vision_blocks(self, network: Any) -> list[nn.Module]:
        """As `Family`."""
        return list(network.vision_model.encoder.layers)

    def features(self, network: Any, pixels_NCHW: Tensor) -> Tensor:
        """As `Family`.

        The family's own method drops images whose every value is zero as padding, which an even grey one is.
        """
        seen = network.vision_model(pixels_NCHW.to(network.dtype)).last_hidden_state
        projected: Tensor = network.connector(seen)
        return projected


class Qwen(Family):
    """Qwen2.5-VL: any multiple of a merged patch; rotary positions over time, height and width."""

    def side_tokens(self, image_px: int) -> int:
        """As `Family`."""
        cell = square_side(self.vision.patch_size) * int(self.vision.spatial_merge_size)
        if image_px % cell:
            raise self._refuse(image_px, f"multiples of {cell}")
        return image_px // cell

    def prompt(self, question: str, images: list[str], bos: str) -> str:
        """As `Family`; the chat format with its default system message."""
        frames = "".join(f"<|vision_start|>{image}<|vision_end|>" for image in images)
        return (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n{frames}{question}<|im_end|>\n<|im_start|>assistant\n"
        )

    def image_token(self, tokenizer: Any) -> str:
        """As `Family`."""
        return "<|image_pad|>"

    def language(self, network: Any) -> Any:
        """As `Family`."""
        return network.language_model

    def vision_parts(self, network: Any) -> list[nn.Module]:
        """As `Family`; the projector is the tower's `merger`."""
        return [network.visual]

    def vision_blocks(self, network: Any) -> list[nn.Module]:
        """As `Family`."""
        return list(network.visual.blocks)

    def features(self, network: Any, pixels_NCHW: Tensor) -> Tensor:
        """As `Family`."""
        patch, merge = square_side(self.vision.patch_size), int(self.vision.spatial_merge_size)
        patches = to_patches(pixels_NCHW, patch, merge, int(self.vision.temporal_patch_size))
        images, side = len(pixels_NCHW), pixels_NCHW.shape[-1] // patch
        grid_N3 = torch.tensor([[1, side, side]] * images, device=pixels_NCHW.device)
        seen: Tensor = network.visual(patches.to(network.dtype), grid_thw=grid_N3).pooler_output
        return seen.unflatten(0, (images, -1))

    def positions(self, ids_BL: Tensor, visible_BL: Tensor, side: int) -> Tensor:
        """Return (B, 3, L) for time, height and width.

        Text counts on all three axes. A frame stands still in time, counts its rows and columns on the others,
        and moves the text behind it on by its side.
        """
        image_BL = ids_BL == self.image_id
        text_BL = (~image_BL & visible_BL).long()
        nth_BL = (image_BL.long().cumsum(dim=1) - 1).clamp(min=0)
        cell_BL = nth_BL % side**2
        frames_BL = (image_BL.long().cumsum(dim=1) - image_BL.long()) // side**2
        start_BL = text_BL.cumsum(dim=1) - text_BL + side * frames_BL
        zero_BL = torch.zeros_like(start_BL)
        step_B3L = torch.stack([zero_BL, cell_BL // side, cell_BL % side], dim=1)
        return start_BL[:, None] + step_B3L * image_BL[:, None]


class PaliGemma(Family):
    """PaliGemma and PaliGemma 2: SigLIP at its own size, a prompt seen in both directions, Gemma."""

    full_prefix = True

    def side_tokens(self, image_px: int) -> int:
        """As `Family`; only the tower's own size."""
        patch, only = square_side(self.vision.patch_size), square_side(self.vision.image_size)
        if image_px != only:
            raise self._refuse(image_px, f"{only} only")
        return image_px // patch

    def prompt(self, question: str, images: list[str], bos: str) -> str:
        """As `Family`; the model has no chat format, a line feed ends the prompt."""
        return f"{''.join(images)}{bos}{question}\n"

    def image_token(self, tokenizer: Any) -> str:
        """As `Family`."""
        return "<image>"

    def language(self, network: Any) -> Any:
        """As `Family`."""
        return network.language_model

    def vision_parts(self, network: Any) -> list[nn.Module]:
        """As `Family`."""
        return [network.vision_tower, network.multi_modal_projector]

    def vision_blocks(self, network: Any) -> list[nn.Module]:
        """As `Family`."""
        return list(network.vision_tower.encoder.layers)

    def features(self, network: Any, pixels_NCHW: Tensor) -> Tensor:
        """As `Family`."""
        seen: Tensor = network.get_image_features(pixels_NCHW.to(network.dtype)).pooler_output
        return seen

    def positions(self, ids_BL: Tensor, visible_BL: Tensor, side: int) -> Tensor:
        """As `Family`, counted from one."""
        return super().positions(ids_BL, visible_BL, side) + 1


FAMILIES: dict[str, type[Family]] = {
    "idefics3": Idefics,
    "smolvlm": Idefics,
    "qwen2_5_vl": Qwen,
    "paligemma": PaliGemma,
}
"""`model_type` of a configuration -> what we know of its family."""


def family_of(backbone: Any) -> Family:
    """Return the family of a configuration.

    Raises:
        CheckpointError: none of those that we know.
    """
    if backbone.model_type not in FAMILIES:
        raise CheckpointError(
            f"the backbone is a {backbone.model_type!r}; known families are {', '.join(FAMILIES)}"
        )
    return FAMILIES[backbone.model_type](backbone)
