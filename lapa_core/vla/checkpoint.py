# SPDX-License-Identifier: Apache-2.0
"""Policy models as checkpoints: `pretrained` (latent head) and `policy` (ready for `Policy.load`).

config.json says which family of models it is and its sizes (`model`), the text side (`text`), the latent head
(`latent`), of how many earlier frames it reads the codes (`history`), how actions are decoded (`decoder`: head, table,
chunk, or null before finetuning) and with which bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import torch
from torch import Tensor

from lapa_core.actions.bins import ActionBins
from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.checkpoint import load_checkpoint, load_config, provenance, save_checkpoint
from lapa_core.errors import CheckpointError, ContractError
from lapa_core.robot.contract import load_contract
from lapa_core.vla.base import VlaModel, model_class
from lapa_core.vla.config import ModelConfig
from lapa_core.vla.history import HISTORY

PRETRAINED, POLICY = "pretrained", "policy"
WEIGHTS_PREFIX = "model."
"""Prefix of the model's tensors in a checkpoint."""


class LoadedVla(NamedTuple):
    """A model rebuilt from its checkpoint."""

    model: VlaModel
    """In evaluation mode."""
    config: dict[str, Any]
    """The whole config.json."""
    table_QA: Tensor | None
    """Code-to-action table of a policy that decodes by it."""


def describe(config: ModelConfig) -> dict[str, Any]:
    """Return the JSON-able form of a model configuration; `restore` is its inverse."""
    return {"kind": config.KIND, **asdict(config)}


def restore(fields: Mapping[str, Any]) -> ModelConfig:
    """Rebuild a model configuration from `describe`'s form, strictly.

    Raises:
        CheckpointError: an unknown kind, or fields that it does not have.
    """
    kinds = {known.KIND: known for known in get_args(ModelConfig) or (ModelConfig,)}
    if fields.get("kind") not in kinds:
        raise CheckpointError(
            f"{fields.get('kind')!r} is no kind of policy model; known are {sorted(kinds)}"
        )
    own = {name: value for name, value in fields.items() if name != "kind"}
    try:
        config: ModelConfig = _from_json(kinds[fields["kind"]], own)
    except (TypeError, ContractError) as error:
        raise CheckpointError(f"the model's description is wrong: {error}") from error
    return config


def save_vla(
    directory: Path,
    kind: str,
    model: VlaModel,
    table_QA: Tensor | None = None,
    *,
    weights: Iterable[tuple[str, Tensor]] | None = None,
    **facts: Any,
) -> Path:
    """Save a model so that it rebuilds itself.

    Args:
        directory: where the checkpoint shall lie.
        kind: `pretrained` or `policy`.
        model: what is saved, with its text side.
        table_QA: code-to-action table of a policy that decodes by it.
        weights: names and tensors of the state dict, where the model itself holds them otherwise.
        **facts: further entries of config.json.
    """
    if (text := model.text) is None:
        raise CheckpointError("a model without its text side cannot be saved: nothing could use it")
    own = model.state_dict().items() if weights is None else weights

    def tensors() -> Iterator[tuple[str, Tensor]]:
        yield from ((WEIGHTS_PREFIX + name, tensor) for name, tensor in own)
        if table_QA is not None:
            yield "table_QA", table_QA

    described = description(kind, model, table_QA, **facts)
    return save_checkpoint(directory, tensors(), described, beside=text.save)


def description(
    kind: str, model: VlaModel, table_QA: Tensor | None = None, **facts: Any
) -> dict[str, Any]:
    """Return the config.json of a model, whose weights may be elsewhere; see `save_vla`."""
    assert model.text is not None, "only a model with its text side is saved"
    return {
        "kind": kind,
        "model": describe(model.config),
        "image_px": model.config.image_px,
        "text": model.text.to_dict(),
        "latent": None if model.latent is None else list(model.latent),
        "decoder": _decoder(model, table_QA),
        **({} if model.chunk_head is None else {"chunk": model.chunk_head.steps}),
        **({} if model.earlier is None else {HISTORY: model.earlier.shape[0]}),
        **facts,
        "provenance": provenance(),
    }


def load_vla(
    directory: str | Path,
    kind: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> LoadedVla:
    """Rebuild a model strictly from its checkpoint.

    Args:
        directory: the checkpoint.
        kind: which one is needed; None takes both.
        device: where the model shall be.
        dtype: of its weights; None keeps the stored one.

    Raises:
        CheckpointError: missing, damaged, of another kind, or weights that do not fit the description.
    """
    directory = Path(directory)
    tensors, config = load_checkpoint(directory, kind)
    if "model" not in config:
        raise CheckpointError(
            f"{directory} was written before policy models had a kind: its config.json has no 'model'. "
            "Train it again with this version, or use it with the version that it names in 'provenance'"
        )
    try:
        weights = {
            k.removeprefix(WEIGHTS_PREFIX): v
            for k, v in tensors.items()
            if k.startswith(WEIGHTS_PREFIX)
        }
        model = _build(directory, config, weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{directory} does not fit its own description: {error}") from error
    return LoadedVla(model.to(device=device, dtype=dtype).eval(), config, tensors.get("table_QA"))


def load_model_config(directory: str | Path, kind: str | None = None) -> ModelConfig:
    """Return the configuration of a checkpoint's model without reading its weights."""
    return restore(load_config(directory, kind).get("model", {}))


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


def _build(directory: Path, config: Mapping[str, Any], weights: dict[str, Tensor]) -> VlaModel:
    """Build the described model with these weights.

    A large backbone is made without memory of its own, takes its weights as they are mapped from the files, and gets
    its heads then.
    """
    sizes = restore(config["model"])
    family = model_class(sizes.KIND)
    text = family.text_type.load(directory, config["text"])
    if family.large:
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            model = family(sizes, text)
        model.load_state_dict({name: weights[name] for name in model.state_dict()}, assign=True)
    else:
        model = family(sizes, text)
    if config["latent"] is not None:
        model.give_latent_head(*config["latent"])
    if most := config.get(HISTORY, 0):
        model.give_history(most)
    if config["decoder"] == "head":
        model.give_action_head(ActionBins.from_dict(config["bins"]))
    if config["decoder"] == "chunk":
        model.give_chunk_head([0.0] * len(ACTION_NAMES), [1.0] * len(ACTION_NAMES), config["chunk"])
    model.load_state_dict(weights, strict=True, assign=family.large)
    return model


def _decoder(model: VlaModel, table_QA: Tensor | None) -> str | None:
    """Return how a model's actions are decoded: head, table, chunk; None before finetuning."""
    if table_QA is not None:
        return "table"
    if model.chunk_head is not None:
        return "chunk"
    return None if model.bins is None else "head"


def _from_json(kind: type[Any], fields: Mapping[str, Any]) -> Any:
    """Rebuild a dataclass and the dataclasses inside it from `asdict`'s form."""
    types = get_type_hints(kind)
    return kind(
        **{
            name: _from_json(types[name], value)
            if isinstance(value, dict) and is_dataclass(types.get(name))
            else value
            for name, value in fields.items()
        }
    )
