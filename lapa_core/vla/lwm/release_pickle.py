# SPDX-License-Identifier: Apache-2.0
"""The authors' `vqgan` file, a Python pickle, read by an unpickler that can make maps and arrays of numbers only.

A pickle names functions to call. Here each name that the writers of such a file (numpy, JAX, flax) use leads to a
stand-in below, which checks what it is given; any other name is refused before anything is called. Neither JAX nor
flax is needed.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import CheckpointError

Key = tuple[str, ...]


def read_pickled_arrays(path: Path) -> dict[Key, NDArray[np.float32]]:
    """Return the arrays of a pickled tree of maps by their path in it.

    Raises:
        CheckpointError: missing, damaged, or a pickle that wants to make anything else.
    """
    try:
        with path.open("rb") as file:
            tree = _Restricted(file).load()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
            OverflowError, MemoryError, ImportError) as error:  # fmt: skip
        raise CheckpointError(
            f"{path} is not the release's pickle of arrays ({error or type(error).__name__}); download it again"
        ) from error
    arrays = dict(_leaves(tree, (), path))
    return {key[1:]: array for key, array in arrays.items()} if _all_below(arrays) else arrays


class _Dtype:
    """Stands in for `numpy.dtype`: floating point numbers of this machine's byte order."""

    def __init__(self, text: str, *_: Any):
        if text not in ("f2", "f4", "f8"):
            raise pickle.UnpicklingError(f"an array is of type {text!r}; weights are f2, f4 or f8")
        self.numpy = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "="):
            raise pickle.UnpicklingError(f"an array has the byte order {state[1]!r}")


class _Array:
    """Stands in for `numpy.ndarray`; filled by the state that numpy gives its arrays."""

    array: NDArray[np.floating]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_column, data = state
        self.fill(data, dtype, shape, "F" if by_column else "C")

    def fill(self, data: Any, dtype: Any, shape: Any, order: str) -> None:
        """Take the numbers after checking that they fit."""
        if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
            raise pickle.UnpicklingError("an array is not made of plain numbers")
        sizes = tuple(int(size) for size in shape)
        if min(sizes, default=0) < 0 or prod(sizes) * dtype.numpy.itemsize != len(data):
            raise pickle.UnpicklingError(f"{dtype.numpy} {sizes} has {len(data)} bytes")
        flat = np.frombuffer(data, dtype.numpy)
        self.array = flat.reshape(sizes, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: str) -> _Array:
    made = _Array()
    made.fill(data, dtype, shape, order)
    return made


def _from_jax(make: Any, arguments: Any, state: Any, *_: Any) -> _Array:
    """JAX wraps what numpy would write."""
    made = make(*arguments) if make in (_reconstruct, _from_buffer) else None
    if not isinstance(made, _Array):
        raise pickle.UnpicklingError("an array of JAX is not made of numbers")
    if state is not None:
        made.__setstate__(state)
    return made


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("flax.core.frozen_dict", "FrozenDict"): dict,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("jax._src.array", "_reconstruct_array"): _from_jax,
    ("jax._src.device_array", "reconstruct_device_array"): _from_jax,
}
"""Every name that a pickle may use -> what it leads to."""


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(
                f"it wants to use {module}.{name}, which no pickle of arrays needs; do not trust this file"
            )
        return _KNOWN[module, name]


def _leaves(tree: Any, key: Key, path: Path) -> Any:
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _leaves(branch, (*key, str(name)), path)
    elif isinstance(tree, _Array) and hasattr(tree, "array"):
        yield key, tree.array
    else:
        where = "/".join(key) or "the file"
        raise CheckpointError(f"{path}: {where} holds a {type(tree).__name__}, not arrays")


def _all_below(arrays: dict[Key, Any]) -> bool:
    """Return whether everything lies below one `params`, as flax' own trees do."""
    return bool(arrays) and all(key[:1] == ("params",) for key in arrays)
