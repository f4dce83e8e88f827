# SPDX-License-Identifier: Apache-2.0
"""Policy models with random weights: what the numbers are does not change how long they take."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import SetupError
from lapa_core.vla.base import VlaModel, model_class
from lapa_core.vla.config import TrunkConfig
from lapa_core.vla.lwm.config import LWM_PRESETS, LwmConfig

MODELS: dict[str, TrunkConfig | LwmConfig] = {"small": TrunkConfig(), **LWM_PRESETS}
"""What can be measured."""
INSTRUCTION = "put the red block into the blue bowl"
SECOND_INSTRUCTION = "open the drawer"
_LATENT = (4, 8)
"""Tokens and codes of the latent head, as in the paper."""
_BINS = 32
"""Bins of a dimension where the configuration does not say."""


def random_model(
    preset: str, device: str, dtype: torch.dtype | None = None, *, beside: float = 0.2
) -> VlaModel:
    """Return a model with both heads and random weights, made where it shall be.

    Args:
        preset: of `MODELS`.
        device: where.
        dtype: of its weights; None is float32 on a CPU and the configuration's own on a GPU.
        beside: memory that shall be left for keys and values, activations and copies, as a share of the weights.

    Raises:
        SetupError: no such device, or too little free memory.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise SetupError(f"device is {device}, but torch sees no CUDA device; use --device cpu")
    config = MODELS[preset]
    own = torch.float32 if device == "cpu" else getattr(torch, getattr(config, "dtype", "float32"))
    family = model_class(config.KIND)
    torch.manual_seed(0)
    with torch.device("meta") if family.large else nullcontext():
        model = family.start(config, [INSTRUCTION, SECOND_INSTRUCTION])
    if family.large:
        model = model.to(dtype or own)
        _check_memory(preset, model, device, beside)
        model = model.to_empty(device=device)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.02) if parameter.ndim > 1 else parameter.fill_(1.0)
    bins = getattr(config, "action_vocab", _BINS)
    model = model.to(device)
    model.give_latent_head(*_LATENT)
    model.give_action_head(ActionBins([*[np.linspace(-1, 1, bins + 1)] * 6, np.array([0, 0.5, 1])]))
    return model.eval()


def _check_memory(preset: str, model: VlaModel, device: str, beside: float) -> None:
    needed = (1 + beside) * sum(p.numel() * p.element_size() for p in model.parameters())
    free = free_memory_bytes(device)
    if needed > free:
        raise SetupError(
            f"{preset} needs {needed / 2**30:.1f} GiB on {device}, where {free / 2**30:.1f} GiB are free; "
            "use a device with more, or a smaller preset"
        )


def free_memory_bytes(device: str) -> int:
    """Return what can be allocated on a device."""
    if device != "cpu":
        return torch.cuda.mem_get_info(device)[0]
    with open("/proc/meminfo") as lines:
        rows = dict(line.split(":") for line in lines)
    return int(rows["MemAvailable"].split()[0]) * 1024
