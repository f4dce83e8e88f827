# SPDX-License-Identifier: Apache-2.0
"""`lapa vla info`: size, names and shapes of a policy model, as JSON, without allocating it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from lapa_core.actions.bins import MAX_BINS, ActionBins
from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.errors import ContractError
from lapa_core.json_text import readable
from lapa_core.presets import VLA_PRETRAIN
from lapa_core.vla.base import VlaModel, make_model
from lapa_core.vla.checkpoint import describe
from lapa_core.vla.config import ModelConfig, TrunkConfig
from lapa_core.vla.lwm.config import LWM_PRESETS
from lapa_core.vla.words import Vocabulary

__all__ = ["VlaInfoConfig", "info", "main"]


@dataclass(frozen=True, kw_only=True)
class VlaInfoConfig:
    """Print a model's parameter count and the names and shapes of its state dict, as JSON."""

    preset: str = "lapa_7b"
    """`lapa_7b` (the authors' released model), `lwm_debug` (the same at toy widths), or any preset of `lapa vla
    pretrain`; of a backbone of `transformers` the configuration is read. The small models are counted with an empty
    word list; every word adds `text_dim` parameters."""
    head: Literal["latent", "action"] = "latent"
    """`latent`: as pretrained; `action`: as finetuned, the latent head replaced by the action head."""
    latent: tuple[int, int] = (4, 8)
    """Codes of a frame pair, and values that a code can take."""
    max_bins: int = MAX_BINS
    """Bins of an action dimension."""


def chosen_model(preset: str) -> ModelConfig:
    """Return the configuration that is asked for.

    Raises:
        ContractError: no such preset.
    """
    models: dict[str, ModelConfig] = {
        **{name: stage.model for name, stage in VLA_PRETRAIN.items()},
        **LWM_PRESETS,
    }
    if preset not in models:
        raise ContractError(f"preset is {preset!r}; known are {', '.join(sorted(models))}")
    return models[preset]


def counted_model(config: VlaInfoConfig) -> VlaModel:
    """Return the model on torch's meta device."""
    model = chosen_model(config.preset)
    text = Vocabulary.fit([]) if isinstance(model, TrunkConfig) else None
    with torch.device("meta"):
        if config.head == "latent":
            return make_model(model, text, latent=config.latent)
        edges = np.linspace(-1.0, 1.0, config.max_bins + 1)
        return make_model(model, text, bins=ActionBins([edges] * len(ACTION_NAMES)))


def info(config: VlaInfoConfig) -> dict[str, Any]:
    """Return the configuration, the counts, and every tensor's shape, built on torch's meta device.

    A frozen tokenizer of frames (the VQGAN) is counted apart from the model, as its authors do.
    """
    model = counted_model(config)
    sizes = {name: tensor.numel() for name, tensor in model.named_parameters()}
    tokenizer = sum(count for name, count in sizes.items() if name.startswith("vqgan."))
    return {
        "preset": config.preset,
        "model": describe(model.config),
        "parameters": sum(sizes.values()) - tokenizer,
        "frame_tokenizer_parameters": tokenizer,
        "shapes": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
    }


def main(config: VlaInfoConfig) -> None:
    """Print it."""
    print(readable(info(config)))
