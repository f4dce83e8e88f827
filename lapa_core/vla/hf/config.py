# SPDX-License-Identifier: Apache-2.0
"""Which backbone of `transformers`, and what it sees. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lapa_core.errors import ContractError
from lapa_core.vla.bounds import at_least


@dataclass(frozen=True, kw_only=True)
class HfConfig:
    """A vision-language model of `transformers` with latent and action heads."""

    KIND: ClassVar[str] = "hf"

    model: str
    """Id on the Hugging Face hub, or a local folder in the same layout; of the families Idefics3, SmolVLM, Qwen2.5-VL,
    PaliGemma and PaliGemma 2. Read when a training starts; a checkpoint needs neither."""
    image_px: int = 224
    """Side of the square frames [px]; what does not suit the vision tower is refused with what does."""
    max_text: int = 64
    """Longest prompt without its image tokens [tokens]; a longer one is refused."""
    cameras: tuple[str, ...] = ("front",)
    """Names of the cameras, in the order of the prompt. The first is the data set's frame; the others come by these
    names among the extra inputs."""
    state_dim: int = 0
    """Length of the proprioceptive state, which enters as one more token: `state` of the extra inputs, about as large
    as joint angles in [rad] are; 0 is off."""
    decoding: Literal["sequential", "parallel"] = "sequential"
    """sequential: each token sees those before it (the paper); parallel: learned queries take the tokens' places, and
    all tokens come from one forward."""
    freeze_vision: bool = True
    """Never train the vision tower and its projector (the paper's vision encoder is frozen)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cameras", tuple(self.cameras))
        if not self.model:
            raise ContractError("model is empty; give an id of the Hugging Face hub or a folder")
        at_least(self, image_px=1, max_text=1, state_dim=0)
        names = [*self.cameras, "state"]
        if not self.cameras or len(set(names)) != len(names):
            raise ContractError(
                f"cameras are {self.cameras}; give at least one name, none twice, none of them 'state'"
            )
        if self.decoding not in ("sequential", "parallel"):
            raise ContractError(
                f"decoding is {self.decoding!r}; allowed are 'sequential' and 'parallel'"
            )

    @property
    def proprioception(self) -> bool:
        """Whether the state is an input."""
        return self.state_dim > 0


HF_PRESETS: dict[str, HfConfig] = {
    "smolvlm2_500m": HfConfig(model="HuggingFaceTB/SmolVLM2-500M-Video-Instruct", image_px=512),
    "qwen2_5_vl_3b": HfConfig(model="Qwen/Qwen2.5-VL-3B-Instruct", image_px=224),
    "paligemma2_3b": HfConfig(model="google/paligemma2-3b-pt-224", image_px=224),
}
"""A published model of each kind, at 64, 64 and 256 tokens per frame; Google asks to accept a licence first."""
