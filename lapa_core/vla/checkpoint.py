# SPDX-License-Identifier: Apache-2.0
"""Policy models as checkpoints: `pretrained` (latent head) and `policy` (ready for `Policy.load`)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lapa_core.actions.bins import ActionBins
from lapa_core.checkpoint import load_checkpoint, provenance, save_checkpoint
from lapa_core.errors import CheckpointError
from lapa_core.robot.contract import load_contract
from lapa_core.vla.config import TrunkConfig
from lapa_core.vla.model import VlaModel
from lapa_core.vla.words import Vocabulary

PRETRAINED, POLICY = "pretrained", "policy"


class LoadedVla(NamedTuple):
    """A model rebuilt from its checkpoint."""

    model: VlaModel
    """In evaluation mode."""
    vocabulary: Vocabulary
    """The words it knows."""
    trunk: TrunkConfig
    """Its sizes."""
    config: dict[str, Any]
    """The whole config.json."""
    table_QA: torch.Tensor | None
    """Code-to-action table of a policy that decodes by it."""


def save_vla(
    directory: Path,
    kind: str,
    model: VlaModel,
    trunk: TrunkConfig,
    vocabulary: Vocabulary,
    table_QA: torch.Tensor | None = None,
    **facts: Any,
) -> Path:
    """Save a model so that it rebuilds itself; `facts` go into its config.json."""
    latent = None if model.latent_head is None else list(model.latent_head.shape)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if table_QA is not None:
        tensors["table_QA"] = table_QA
    description = {
        "kind": kind,
        "trunk": asdict(trunk),
        "image_px": trunk.image_px,
        "words": list(vocabulary.words),
        "latent": latent,
        "decoder": "head" if table_QA is None else "table",
        **facts,
        "provenance": provenance(),
    }
    return save_checkpoint(directory, tensors, description)


def load_vla(directory: str | Path, kind: str | None = None, device: str = "cpu") -> LoadedVla:
    """Rebuild a model strictly from its checkpoint.

    Raises:
        CheckpointError: missing, damaged, of another kind, or weights that do not fit the description.
    """
    tensors, config = load_checkpoint(directory, kind)
    try:
        vocabulary, trunk = Vocabulary(config["words"]), TrunkConfig(**config["trunk"])
        latent = None if config["latent"] is None else tuple(config["latent"])
        has_head = any(name.startswith("model.action_head.") for name in tensors)
        bins = ActionBins.from_dict(config["bins"]) if has_head else None
        model = VlaModel(trunk, len(vocabulary), latent=latent, bins=bins)
        model.load_state_dict(
            {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}, strict=True
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{directory} does not fit its own description: {error}") from error
    return LoadedVla(model.to(device).eval(), vocabulary, trunk, config, tensors.get("table_QA"))


def policy_facts(contract: str, bins: ActionBins, temperature: float) -> dict[str, Any]:
    """Return what `Policy.load` asks of a policy's config beside the model."""
    robot = load_contract(contract)
    return {
        "bins": bins.to_dict(),
        "temperature": temperature,
        "contract": robot.name,
        "contract_hash": robot.hash,
        "control_rate_hz": robot.control_rate_hz,
        "max_translation_m": robot.max_translation_m,
        "max_rotation_rad": robot.max_rotation_rad,
    }
