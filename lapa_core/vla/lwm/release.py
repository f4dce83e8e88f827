# SPDX-License-Identifier: Apache-2.0
"""What the release's two files hold, checked against the model, as tensors that can be fetched one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapa_core.errors import CheckpointError
from lapa_core.vla.lwm.config import LwmConfig
from lapa_core.vla.lwm.release_names import ReleaseTensor, release_tensors, vqgan_tensors
from lapa_core.vla.lwm.release_pickle import read_pickled_arrays
from lapa_core.vla.lwm.release_stream import DTYPES, ArrayPlace, Key, index_stream, read_array
from lapa_core.vla.lwm.safetensors_file import Slot

VQGAN_PREFIX = "vqgan.model."
"""Of the frame tokenizer's tensors in the state dict of `LwmVla`."""


class Piece(NamedTuple):
    """One tensor of ours and how to get it."""

    slot: Slot
    """Name in the state dict of `LwmVla`, shape, type."""
    fetch: Callable[[], Tensor]
    """Reads and converts it; a `CheckpointError` where its numbers are not finite."""


@contextmanager
def open_release(
    params: Path, vqgan: Path, config: LwmConfig, latent_codes: int | None
) -> Iterator[list[Piece]]:
    """Check both files whole and yield the pieces, in the order of our state dict.

    Args:
        params: the language model.
        vqgan: the frame tokenizer.
        config: sizes that they must have.
        latent_codes: of the latent head; None: the file must have none.

    Raises:
        CheckpointError: names every array that is missing, surplus, of another shape, or damaged.
    """
    places = index_stream(params)
    wanted = list(release_tensors(config, latent_codes))
    check_arrays(params, wanted, {key: place.shape for key, place in places.items()}, config.layers)
    if len(types := {place.dtype for place in places.values()}) > 1:
        raise CheckpointError(f"{params} mixes the types {sorted(types)}; one is needed")
    frames = read_pickled_arrays(vqgan)
    tokenizer = list(vqgan_tensors(config.vqgan))
    check_arrays(vqgan, tokenizer, {key: array.shape for key, array in frames.items()}, None)
    with params.open("rb") as file:
        streamed = [
            _streamed(file, places[tensor.key], tensor, config.heads, params) for tensor in wanted
        ]
        yield streamed + [_pickled(frames[tensor.key], tensor, vqgan) for tensor in tokenizer]


def check_arrays(
    path: Path,
    wanted: list[ReleaseTensor],
    found: Mapping[Key, tuple[int, ...]],
    layers: int | None,
) -> None:
    """Compare the arrays of a file with those of the model.

    Raises:
        CheckpointError: names every one that is missing, surplus or of another shape.
    """
    needed = {
        tensor.key: tensor.release_shape
        if tensor.layer is None
        else (layers, *tensor.release_shape)
        for tensor in wanted
    }
    faults = [f"missing {'/'.join(key)}" for key in needed if key not in found]
    faults += [f"surplus {'/'.join(key)}" for key in found if key not in needed]
    faults += [
        f"{'/'.join(key)} has shape {found[key]}, not {shape}"
        for key, shape in needed.items()
        if key in found and tuple(found[key]) != shape
    ]
    if faults:
        raise CheckpointError(
            f"{path} is not of this model: {'; '.join(faults)}. Give the release's file, or the sizes that it "
            "was trained with"
        )


def _streamed(
    file: BufferedReader, place: ArrayPlace, tensor: ReleaseTensor, heads: int, path: Path
) -> Piece:
    def fetch() -> Tensor:
        array = _finite(read_array(file, place, tensor.layer), tensor, path)
        return tensor.convert(array, heads)

    return Piece(Slot(name=tensor.name, shape=tensor.shape, dtype=DTYPES[place.dtype]), fetch)


def _pickled(array: NDArray[Any], tensor: ReleaseTensor, path: Path) -> Piece:
    def fetch() -> Tensor:
        ours = torch.from_numpy(np.array(array, np.float32))
        return tensor.convert(_finite(ours, tensor, path), 1)

    slot = Slot(name=VQGAN_PREFIX + tensor.name, shape=tensor.shape, dtype=torch.float32)
    return Piece(slot, fetch)


def _finite(array: Tensor, tensor: ReleaseTensor, path: Path) -> Tensor:
    if not array.isfinite().all():
        layer = "" if tensor.layer is None else f", layer {tensor.layer},"
        raise CheckpointError(
            f"{path}: {'/'.join(tensor.key)}{layer} has values that are not finite; download the file again"
        )
    return array
