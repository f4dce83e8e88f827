# SPDX-License-Identifier: Apache-2.0
"""Training with few weights: low-rank adapters (peft) in the blocks, over a base that may be frozen in 4 bits.

    adapt(model, rank=32, alpha=32, nf4=True)   # before the model moves to its device
    ...
    dict(merged(model, whole))                    # tensors under the model's own names

What is trained then: the adapters, the heads (with their embeddings) and a projection of the robot's state. Everything
else stands still, in bfloat16 or in 4 bits; the adapters themselves are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lapa_core.errors import ContractError, SetupError
from lapa_core.vla.base import VlaModel, model_class

_NAME = "default"
"""peft's name of the one adapter."""


def adapt(model: VlaModel, *, rank: int, alpha: int, nf4: bool = False, bf16: bool = False) -> None:
    """Freeze a model and put adapters beside every linear layer of its blocks; does nothing when the rank is 0.

    Args:
        model: with the heads that are to be trained.
        rank: of the adapters.
        alpha: the adapters' product counts alpha / rank.
        nf4: keep the linear layers of the blocks in 4 bits.
        bf16: keep what stood still only now in bfloat16.

    Raises:
        ContractError: the model has no blocks.
        SetupError: nf4 is asked for and bitsandbytes is not installed.
    """
    if not rank:
        return
    if not model.blocks():
        raise ContractError(
            f"lora_rank is {rank}, but a {model.config.KIND} model has no blocks for adapters; set it to 0"
        )
    from peft import LoraConfig, inject_adapter_in_model

    heads = [model.get_parameter(name) for name in new_names(model)]
    if bf16:
        kept = {id(parameter) for parameter in heads}
        for parameter in model.parameters():
            if parameter.requires_grad and id(parameter) not in kept:
                parameter.data = parameter.data.to(torch.bfloat16)
    layers = _linear_layers(model)
    if nf4:
        _to_nf4(model, layers, torch.bfloat16 if bf16 else torch.float32)
        model.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft asks for it
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers), model)
    for parameter in heads:
        parameter.requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad:  # peft gives adapters the type of what they stand beside
            parameter.data = parameter.data.float()


def new_names(model: VlaModel) -> list[str]:
    """Return the names of what has no pretrained weights: the heads' parameters and the model's `new_parts`."""
    with torch.device("meta"):
        bare = model_class(model.config.KIND)(model.config, model.text)
    known = {name for name, _ in bare.named_parameters()}
    names = [name for name, _ in model.named_parameters()]
    return [name for name in names if name not in known or name.startswith(model.new_parts)]


def merged(
    model: nn.Module, gather: Callable[[Tensor], Tensor], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the model's tensors under its own names, adapters added to their layers, one at a time.

    Args:
        model: with or without adapters.
        gather: returns a tensor whole (`lapa_core.train.parallel.whole`); every process takes all of them.
        dtype: of the floating tensors that are yielded; none leaves each as it is.
    """
    from peft.tuners.lora import LoraLayer

    adapted = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    inside = tuple(f"{name}." for name in adapted)
    for name, tensor in model.state_dict().items():
        if not name.startswith(inside):
            yield name, _cast(gather(tensor), dtype)
    for name, layer in adapted.items():
        base: Any = layer.get_base_layer()
        yield f"{name}.weight", _cast(_merged_weight(layer, base, gather), dtype)
        if base.bias is not None:
            yield f"{name}.bias", _cast(gather(base.bias), dtype)


def _merged_weight(layer: Any, base: Any, gather: Callable[[Tensor], Tensor]) -> Tensor:
    down, up = (gather(part[_NAME].weight).float() for part in (layer.lora_A, layer.lora_B))
    return whole_weight(base, gather).float() + layer.scaling[_NAME] * (up @ down)


def whole_weight(base: Any, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the weight of a linear layer, out of 4 bits where it is kept so."""
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        return gather(base.weight)
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(base.weight.data, state)
    return weight


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _linear_layers(model: VlaModel) -> list[str]:
    """Return the names of all linear layers inside the blocks."""
    inside = {id(layer) for block in model.blocks() for layer in block.modules()}
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and id(layer) in inside
    ]


def _to_nf4(model: nn.Module, names: list[str], compute: torch.dtype) -> None:
    """Replace linear layers by 4-bit ones; their weights are packed when the model moves to its device."""
    try:
        from bitsandbytes.nn.modules import Linear4bit, Params4bit
    except ImportError as error:
        raise SetupError(
            "base is nf4, which needs bitsandbytes; install it with `pip install 'lapa_core[quant]'`, or use "
            "--base full"
        ) from error
    for name in names:
        old = model.get_submodule(name)
        assert isinstance(old, nn.Linear), name
        with torch.device("meta"):
            new = Linear4bit(
                old.in_features,
                old.out_features,
                bias=False,
                compute_dtype=compute,
                quant_type="nf4",
            )
        new.weight = Params4bit(old.weight.data, requires_grad=False, quant_type="nf4")
        new.bias = old.bias
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, new)
