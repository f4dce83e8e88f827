# SPDX-License-Identifier: Apache-2.0
"""`lapa laq info`: size, names and shapes of a latent action model, as JSON, without allocating it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from lapa_core.errors import ContractError
from lapa_core.json_text import readable
from lapa_core.laq.checkpoint import build_laq, describe
from lapa_core.laq.config import ConvLaqConfig, PatchLaqConfig
from lapa_core.laq.presets import LAQ_TRAIN

__all__ = ["LaqInfoConfig", "info", "main"]


@dataclass(frozen=True, kw_only=True)
class LaqInfoConfig:
    """Print a preset's parameter count and the names and shapes of its state dict, as JSON."""

    preset: str = "paper"
    """`paper` (the paper's sizes) or any preset of `lapa laq train`."""
    compat: Literal["preset", "corrected", "release"] = "preset"
    """`release` shows the authors' published network, `corrected` ours, `preset` what the preset says."""


def chosen_model(config: LaqInfoConfig) -> ConvLaqConfig | PatchLaqConfig:
    """Return the configuration that is asked for.

    Raises:
        ContractError: no such preset, or the conv design, which was never released.
    """
    models: dict[str, ConvLaqConfig | PatchLaqConfig] = {
        "paper": PatchLaqConfig(),
        **{name: preset.model for name, preset in LAQ_TRAIN.items()},
    }
    if config.preset not in models:
        raise ContractError(f"preset is {config.preset!r}; known are {', '.join(sorted(models))}")
    model = models[config.preset]
    if config.compat == "preset":
        return model
    if not isinstance(model, PatchLaqConfig):
        raise ContractError(
            f"the preset {config.preset!r} is the conv design, which has no compat; "
            "choose a preset of the paper's layout, such as paper"
        )
    return replace(model, compat=config.compat)


def info(config: LaqInfoConfig) -> dict[str, Any]:
    """Return the configuration, the counts, and every tensor of the state dict, built on torch's meta device."""
    description = chosen_model(config)
    with torch.device("meta"):
        model = build_laq(description)
    parameters = {name for name, _ in model.named_parameters()}
    state = model.state_dict()
    return {
        "preset": config.preset,
        "model": describe(description),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "buffer_values": sum(t.numel() for name, t in state.items() if name not in parameters),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
        "state": {
            name: {
                "shape": list(tensor.shape),
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "kind": "parameter" if name in parameters else "buffer",
            }
            for name, tensor in state.items()
        },
    }


def main(config: LaqInfoConfig) -> None:
    """Print it."""
    print(readable(info(config)))
