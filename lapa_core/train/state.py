# SPDX-License-Identifier: Apache-2.0
"""The resumable state of a run on disk: model, optimizer and step, whole in one file or every process's own part.

Under FSDP2 each process writes what it holds (`torch.distributed.checkpoint`), so that no process ever gathers a
model. The parts are safetensors whose headers say where they belong; no pickle. Either kind goes on in any number of
processes, divided or not: the parts are cut again while they are read. All processes must see the same directory.

Parameters that are not trained are left out: they are what the run starts from.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lapa_core.checkpoint import (
    load_checkpoint,
    load_config,
    save_checkpoint,
    swap_in,
    write_config,
)
from lapa_core.errors import CheckpointError
from lapa_core.paths import sync
from lapa_core.train.parallel import divided_like, whole

KIND = "state"
Optimizer = torch.optim.Optimizer


def save_state(
    directory: Path, model: nn.Module, optimizer: Optimizer, config: dict[str, Any], *, leads: bool
) -> None:
    """Replace the state in a directory; every process must call.

    Args:
        directory: where it lies, on a file system that all processes share.
        model: what is trained, as it was wrapped.
        optimizer: its optimizer.
        config: the step and whatever a resume must find unchanged.
        leads: whether this process writes what there is one of.
    """
    config = {"kind": KIND, **config}
    tensors = {**_model_tensors(model), **_optimizer_tensors(model, optimizer)}
    if any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        _save_parts(directory, tensors, config, leads=leads)
        return
    if leads:
        save_checkpoint(directory, {k: whole(v) for k, v in tensors.items()}, config)


def load_state(directory: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Load a state into a model and its optimizer, in whatever way they are divided now; every process must call.

    Raises:
        CheckpointError: the state is damaged or does not fit the model.
    """
    config = load_config(directory, KIND)
    if "parts" in config:
        _load_parts(directory, config["parts"], model, optimizer)
        return
    tensors, _ = load_checkpoint(directory, KIND)
    expected = _model_tensors(model)
    _check_names({k for k in tensors if not k.startswith("optimizer.")}, set(expected), directory)
    for name, tensor in expected.items():
        tensor.copy_(divided_like(tensors[name], tensor))
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _set_optimizer_tensor(model, optimizer, name, value)


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes, unsaved buffers included; writing into these tensors changes the model."""
    frozen = tuple(n for n, p in model.named_parameters() if not p.requires_grad)
    inside = tuple(f"{name}." for name in frozen)  # how a 4-bit weight is to be read
    kept = {
        f"model.{name}": tensor.detach()
        for name, tensor in model.state_dict().items()
        if name not in frozen and not name.startswith(inside)
    }
    in_state = model.state_dict().keys()
    extra = {f"buffer.{n}": b for n, b in model.named_buffers() if n not in in_state}
    return {**kept, **extra}


def _optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{field}.{name}": value.detach()
        for name, parameter in model.named_parameters()
        for field, value in optimizer.state.get(parameter, {}).items()
    }


def _set_optimizer_tensor(model: nn.Module, optimizer: Optimizer, key: str, value: Tensor) -> None:
    _, field, name = key.split(".", 2)
    parameter = model.get_parameter(name)
    if field == "step":  # fused kernels count on the device, the others on the CPU
        kept = value.to(parameter.device if optimizer.defaults.get("fused") else "cpu").clone()
    else:
        kept = divided_like(value, parameter.detach())
    optimizer.state[parameter][field] = kept


def _save_parts(
    directory: Path, tensors: dict[str, Tensor], config: dict[str, Any], *, leads: bool
) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    fresh = directory.with_name(f".{directory.name}.fresh")
    if leads:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
    dist.barrier()
    save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(fresh), save_distributed=True))
    dist.barrier()
    if leads:
        parts = {path.name: path.stat().st_size for path in sorted(fresh.iterdir())}
        write_config(fresh, {**config, "parts": parts})
        sync(fresh)
        swap_in(fresh, directory)
    dist.barrier()


def _load_parts(
    directory: Path, parts: dict[str, int], model: nn.Module, optimizer: Optimizer
) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    for name, size in parts.items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != size:
            raise CheckpointError(
                f"{path} is missing or has not its {size} bytes; the state is damaged. Copy the whole folder again, "
                "or delete it to start over"
            )
    reader = HuggingFaceStorageReader(str(directory))
    saved = set(reader.read_metadata().state_dict_metadata)
    moments = {key for key in saved if key.startswith("optimizer.")}
    targets = _model_tensors(model)
    _check_names(saved - moments, set(targets), directory)
    for key in moments:
        _, field, name = key.split(".", 2)
        like = model.get_parameter(name).detach()
        targets[key] = torch.zeros(()) if field == "step" else torch.zeros_like(like)
    with _alone_is_no_warning():
        load(targets, storage_reader=reader, no_dist=not dist.is_initialized())
    for key in moments:
        _, field, name = key.split(".", 2)
        if field == "step":
            _set_optimizer_tensor(model, optimizer, key, targets[key])
        else:
            optimizer.state[model.get_parameter(name)][field] = targets[key]


@contextmanager
def _alone_is_no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _check_names(saved: set[str], expected: set[str], directory: Path) -> None:
    if saved != expected:
        missing, extra = sorted(expected - saved)[:3], sorted(saved - expected)[:3]
        raise CheckpointError(
            f"the state in {directory} is of another model: it lacks {missing} and has {extra} beside; "
            "choose another --out, or delete it to start over"
        )
