# SPDX-License-Identifier: Apache-2.0
"""Messages on the wire: msgpack with arrays as openpi's client writes them; no pickle, no objects, no surprises.

An array is the map {b"__ndarray__": True, b"data": bytes, b"dtype": text, b"shape": sizes} (openpi-client 0.1.2,
`msgpack_numpy.py`). What is read is checked before anything is allocated for it.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgpack
import numpy as np

from lapa_core.errors import DataError

MAX_ENTRIES = 4096
"""Most entries of one list or map; arrays of numbers travel as arrays."""

_DTYPE = re.compile(r"[<>|=]?([buif])([1248])")
_ARRAY_KEYS = {b"__ndarray__", b"data", b"dtype", b"shape"}
_SCALAR_KEYS = {b"__npgeneric__", b"data", b"dtype"}


def pack(message: dict[str, Any]) -> bytes:
    """Return a message as bytes.

    Raises:
        DataError: it holds something that msgpack and openpi's clients do not know.
    """
    try:
        return msgpack.packb(message, default=_to_wire)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"a message cannot be packed: {error}") from error


def unpack(data: bytes) -> dict[str, Any]:
    """Return the message in `data`, whose length the caller has limited. Arrays are read-only views of it.

    Raises:
        DataError: no msgpack, no map of names at the top, or an array that is not what it says.
    """
    try:
        message = msgpack.unpackb(
            data, object_hook=_from_wire, max_array_len=MAX_ENTRIES, max_map_len=MAX_ENTRIES, max_ext_len=0,
        )  # fmt: skip
    except DataError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DataError(
            f"the message is no msgpack that is understood here ({error or type(error).__name__}); send one map "
            "packed as openpi-client does"
        ) from error
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise DataError("the message must be one map whose keys are text")
    return message


def _to_wire(value: Any) -> dict[bytes, Any]:
    if isinstance(value, (np.ndarray, np.generic)) and _DTYPE.fullmatch(value.dtype.str):
        if isinstance(value, np.generic):
            return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    kind = value.dtype if isinstance(value, (np.ndarray, np.generic)) else type(value).__name__
    raise TypeError(f"values of type {kind} do not travel")


def _from_wire(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return _array(value)
    if b"__npgeneric__" in value:
        if set(value) != _SCALAR_KEYS or not isinstance(value[b"data"], (bool, int, float)):
            raise DataError("a number in the message is not as openpi-client packs it")
        try:
            return _dtype(value[b"dtype"]).type(value[b"data"])
        except OverflowError as error:
            raise DataError(f"a number in the message does not fit its type: {error}") from error
    return value


def _array(value: dict[Any, Any]) -> np.ndarray:
    if set(value) != _ARRAY_KEYS:
        raise DataError("an array in the message is not as openpi-client packs it")
    data, shape, dtype = value[b"data"], value[b"shape"], _dtype(value[b"dtype"])
    sizes_are_counts = isinstance(shape, (list, tuple)) and all(
        type(size) is int and size >= 0 for size in shape
    )
    if not isinstance(data, bytes) or not sizes_are_counts or len(shape) > 8:
        raise DataError(
            "an array in the message needs bytes as data and up to 8 whole numbers as shape"
        )
    if math.prod(shape) * dtype.itemsize != len(data):
        raise DataError(
            f"an array in the message says {dtype} {tuple(shape)}, which is {math.prod(shape) * dtype.itemsize} "
            f"bytes, and has {len(data)}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _dtype(text: Any) -> np.dtype:
    found = _DTYPE.fullmatch(text) if isinstance(text, str) else None
    if found is None or found.groups() in {("f", "1"), ("b", "2"), ("b", "4"), ("b", "8")}:
        raise DataError(
            f"an array in the message has dtype {text!r}; booleans, integers and floats travel"
        )
    return np.dtype(text)
