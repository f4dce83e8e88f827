# SPDX-License-Identifier: Apache-2.0
"""One safetensors file written tensor by tensor, so that no more than one of them is in memory.

The format: 8 bytes of length, a JSON header with type, shape and offsets of every tensor, the tensors' bytes. The
safetensors library wants all tensors of a file at once, and copies them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lapa_core.paths import sync

_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One tensor of the file, before it is written."""

    name: str
    """Its name."""
    shape: tuple[int, ...]
    """Its shape."""
    dtype: torch.dtype
    """bfloat16, float16 or float32."""

    @property
    def nbytes(self) -> int:
        """Its size [bytes]."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_safetensors(path: Path, slots: Sequence[Slot], tensors: Iterable[Tensor]) -> None:
    """Write a file; it has its name only when it is whole and on the disk.

    Args:
        path: of the file.
        slots: what it holds, in order.
        tensors: one for each slot; each is dropped before the next one is asked for.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for slot in slots:
        offsets = [end, end := end + slot.nbytes]
        header[slot.name] = {
            "dtype": _NAMES[slot.dtype],
            "shape": list(slot.shape),
            "data_offsets": offsets,
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for slot, tensor in zip(slots, tensors, strict=True):
            assert (tuple(tensor.shape), tensor.dtype) == (slot.shape, slot.dtype), slot.name
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    sync(unfinished)
    unfinished.rename(path)
