# SPDX-License-Identifier: Apache-2.0
"""The restricted unpickler: trees of arrays however they were written, and nothing else."""

from __future__ import annotations

import collections
import os
import pickle
import sys
import types

import numpy as np
import pytest

from lapa_core.errors import CheckpointError
from lapa_core.vla.lwm.release_pickle import read_pickled_arrays
from tests.vla.release_files import noise

TREE = {"encoder": {"Conv_0": {"kernel": noise((3, 3, 2, 4)), "bias": noise(4)}}}


def check(path, tree):
    arrays = read_pickled_arrays(path)
    assert np.array_equal(
        arrays["encoder", "Conv_0", "kernel"], TREE["encoder"]["Conv_0"]["kernel"]
    )
    assert np.array_equal(arrays["encoder", "Conv_0", "bias"], TREE["encoder"]["Conv_0"]["bias"])
    assert len(arrays) == 2


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("wrap", [dict, collections.OrderedDict, lambda tree: {"params": tree}])
def test_a_tree_of_arrays_is_read_whatever_the_protocol(tmp_path, protocol, wrap):
    path = tmp_path / "vqgan"
    path.write_bytes(pickle.dumps(wrap(TREE), protocol))
    check(path, TREE)


def test_arrays_by_column_and_of_other_precision_are_read(tmp_path):
    path = tmp_path / "vqgan"
    by_column = np.asfortranarray(noise((3, 4)))
    path.write_bytes(pickle.dumps({"a": by_column, "b": by_column.astype(np.float64)}))
    arrays = read_pickled_arrays(path)
    assert np.array_equal(arrays["a",], by_column)
    assert arrays["b",].dtype == np.float64


def under_name(monkeypatch, module: str, name: str, made) -> None:
    """Let `made` be pickled as `module.name`."""
    made.__module__, made.__qualname__, made.__name__ = module, name, name
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        package = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    setattr(sys.modules[module], name, made)


def test_the_maps_of_flax_and_the_arrays_of_jax_need_neither(tmp_path, monkeypatch):
    class FrozenDict:
        def __reduce__(self):
            return FrozenDict, (
                {"encoder": {"Conv_0": {k: JaxArray(k) for k in ("kernel", "bias")}}},
            )

        def __init__(self, tree=None):
            self.tree = tree

    def reconstruct(make, arguments, state, more):
        raise AssertionError("only its name is used")

    class JaxArray:
        def __init__(self, name):
            self.array = TREE["encoder"]["Conv_0"][name]

        def __reduce__(self):
            make, arguments, state = self.array.__reduce__()
            return reconstruct, (make, arguments, state, {"weak_type": False})

    path = tmp_path / "vqgan"
    with monkeypatch.context() as patch:
        under_name(patch, "flax.core.frozen_dict", "FrozenDict", FrozenDict)
        under_name(patch, "jax._src.array", "_reconstruct_array", reconstruct)
        path.write_bytes(pickle.dumps(FrozenDict()))
    check(path, TREE)


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "system"), (eval, "builtins.eval"), (getattr, "builtins.getattr"),
        (open, "open"), (np.fromfile, "fromfile"), (np.load, "load"),
    ],
)  # fmt: skip
def test_what_calls_anything_is_refused_by_name_and_not_called(tmp_path, function, name):
    path, target = tmp_path / "vqgan", tmp_path / "called"
    path.write_bytes(pickle.dumps({"encoder": Calls(function, f"touch {target}")}))
    with pytest.raises(CheckpointError, match=rf"it wants to use \S*{name}"):
        read_pickled_arrays(path)
    assert not target.exists()


def test_arrays_that_are_not_of_numbers_are_refused(tmp_path):
    path = tmp_path / "vqgan"
    for tree, reason in (
        ({"a": np.array([{}], object)}, "type 'O8'"),
        ({"a": np.zeros(3, np.int64)}, "type 'i8'"),
        ({"a": np.zeros(3, [("x", "f4")])}, "type 'V4'"),
        ({"a": np.zeros(3, ">f4")}, "byte order '>'"),
        ({"a": [1.0, 2.0]}, "a holds a list"),
        ({"a": {"b": 3.0}}, "a/b holds a float"),
        (noise(3).tolist(), "the file holds a list"),
        ({"a": Calls(np.ndarray, (3,))}, "is not the release's pickle"),
    ):
        path.write_bytes(pickle.dumps(tree))
        with pytest.raises(CheckpointError, match=reason):
            read_pickled_arrays(path)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "vqgan"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_pickled_arrays(path)
    whole = pickle.dumps(TREE)
    for length in range(0, len(whole), 23):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_pickled_arrays(path)
    rng = np.random.default_rng(0)
    for position in rng.permutation(len(whole))[:80]:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            arrays = read_pickled_arrays(path)
        except CheckpointError:
            continue
        assert all(array.dtype.kind == "f" for array in arrays.values())
