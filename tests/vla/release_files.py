# SPDX-License-Identifier: Apache-2.0
"""Writes files in the release's format, as tux' StreamingCheckpointer and flax' serialization write them."""

from __future__ import annotations

import pickle
from pathlib import Path

import msgpack
import numpy as np
import torch

from lapa_core.vla.lwm.model import LwmVla
from lapa_core.vla.lwm.release_names import vqgan_tensors
from tests.vla.lwm_toys import as_release, toy_lwm

ACTION = {("transformer", "ate", "embedding"), ("action_head", "kernel")}


def flax_array(tensor: torch.Tensor) -> msgpack.ExtType:
    name = str(tensor.dtype).removeprefix("torch.")
    numbers = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    packed = msgpack.packb((tuple(tensor.shape), name, numbers), use_bin_type=True)
    return msgpack.ExtType(1, packed)


def as_tuple(values) -> dict:
    return {str(number): value for number, value in enumerate(values)}


def flax_bytes(tensor: torch.Tensor, chunk_bytes: int) -> bytes:
    if tensor.nbytes <= chunk_bytes:
        return msgpack.packb(flax_array(tensor), strict_types=True)
    count = max(1, chunk_bytes // tensor.dtype.itemsize)
    chunks = [flax_array(chunk) for chunk in tensor.reshape(-1).split(count)]
    data = {
        "__msgpack_chunked_array__": True,
        "shape": as_tuple(tensor.shape),
        "chunks": as_tuple(chunks),
    }
    return msgpack.packb(data, strict_types=True)


def write_params(path: Path, arrays: dict, chunk_bytes: int = 1 << 30) -> Path:
    packer = msgpack.Packer()
    with path.open("wb") as file:
        for key, tensor in arrays.items():
            file.write(packer.pack((key, flax_bytes(tensor, chunk_bytes))))
    return path


def release_arrays(model: LwmVla, dtype: torch.dtype = torch.float32) -> dict:
    """The model's arrays as the release holds them, without the action head."""
    return {
        key: torch.from_numpy(array.copy()).to(dtype)
        for key, array in as_release(model).items()
        if key not in ACTION
    }


def vqgan_tree(model: LwmVla) -> dict:
    """The frame tokenizer's arrays as a tree of maps; convolutions as (height, width, in, out)."""
    state, tree = model.vqgan.model.state_dict(), {}
    for place in vqgan_tensors(model.config.vqgan):
        array = state[place.name].numpy()
        branch = tree
        for name in place.key[:-1]:
            branch = branch.setdefault(name, {})
        branch[place.key[-1]] = array.transpose(2, 3, 1, 0).copy() if array.ndim == 4 else array
    return tree


def write_release(folder: Path, model: LwmVla, dtype=torch.float32, chunk_bytes=1 << 30) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_params(folder / "params", release_arrays(model, dtype), chunk_bytes)
    (folder / "vqgan").write_bytes(pickle.dumps(vqgan_tree(model)))
    model.text.save(folder)
    return folder


def toy_release_model() -> LwmVla:
    """A toy model, with the action head that `as_release` wants and the release has not."""
    model = toy_lwm()
    with torch.no_grad():  # a step that float32 and bfloat16 hold exactly
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())
    return model


def noise(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
