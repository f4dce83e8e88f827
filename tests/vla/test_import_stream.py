# SPDX-License-Identifier: Apache-2.0
"""The reader of the release's stream: layers across chunks, and every kind of damage named by its key."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
import torch

from lapa_core.errors import CheckpointError
from lapa_core.vla.lwm.release_stream import index_stream, read_array
from tests.vla.release_files import flax_array, flax_bytes, noise, write_params

W1, NORM = ("transformer", "h", "w1", "kernel"), ("transformer", "ln_f", "kernel")


@pytest.fixture
def arrays():
    return {
        W1: torch.from_numpy(noise((3, 7, 5))),
        NORM: torch.from_numpy(noise(16, 1)).to(torch.bfloat16),
        ("empty",): torch.zeros(0, 4),
    }


@pytest.mark.parametrize("chunk_bytes", [1 << 30, 100, 13, 4])
def test_layers_are_read_alone_and_across_chunks(tmp_path, arrays, chunk_bytes):
    path = write_params(tmp_path / "params", arrays, chunk_bytes)
    places = index_stream(path)
    assert list(places) == list(arrays)
    with path.open("rb") as file:
        for key, tensor in arrays.items():
            assert torch.equal(read_array(file, places[key]), tensor)
        for layer in (2, 0, 1):
            assert torch.equal(read_array(file, places[W1], layer), arrays[W1][layer])


def test_chunks_may_come_in_any_order(tmp_path):
    tensor = torch.arange(30.0)
    chunks = {str(i): flax_array(tensor[2 * i : 2 * i + 2]) for i in sorted(range(15), key=str)}
    entry = {"__msgpack_chunked_array__": True, "shape": {"0": 30}, "chunks": chunks}
    path = tmp_path / "params"
    path.write_bytes(msgpack.packb((NORM, msgpack.packb(entry))))
    with path.open("rb") as file:
        assert torch.equal(read_array(file, index_stream(path)[NORM]), tensor)


def test_a_file_that_is_cut_off_names_the_key_and_the_one_before(tmp_path, arrays):
    path = write_params(tmp_path / "params", arrays, 100)
    whole = path.read_bytes()
    names = {"/".join(key) for key in arrays}
    ends = {len(write_params(tmp_path / "first", {W1: arrays[W1]}, 100).read_bytes())}
    for length in sorted({*range(1, len(whole), 7), *ends}):
        path.write_bytes(whole[:length])
        try:
            found = index_stream(path)
        except CheckpointError as error:
            said = str(error)
            assert any(name in said for name in names) or "at the start" in said
        else:
            assert len(found) < len(arrays)
            ends.discard(length)
    assert not ends, "a file that ends between two entries is whole as far as it goes"
    inside = whole.index(arrays[NORM].view(torch.uint8).numpy().tobytes())
    path.write_bytes(whole[: inside + 3])
    with pytest.raises(CheckpointError, match=r"the entry of transformer/ln_f/kernel is damaged"):
        index_stream(path)


def test_any_changed_byte_is_either_a_number_or_refused(tmp_path, arrays):
    path = write_params(tmp_path / "params", arrays, 100)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.permutation(len(whole))[:250]:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            places = index_stream(path)
        except CheckpointError:
            refused += 1
        else:
            for place in places.values():
                held = sum(length for _, length in place.pieces)
                assert held == np.prod(place.shape) * place.itemsize
    assert refused > 25


def entry(value, key=NORM) -> bytes:
    return msgpack.packb((key, value if isinstance(value, bytes) else msgpack.packb(value)))


def ext(*parts) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb(parts))


def chunked(**changes) -> dict:
    chunks = {"0": flax_array(torch.zeros(3)), "1": flax_array(torch.zeros(1))}
    whole = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 2}, "chunks": chunks}
    return {**whole, **changes}


MIXED = {"0": flax_array(torch.zeros(2)), "1": flax_array(torch.zeros(4).half())}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (entry(ext((4,), "float32", bytes(15))), r"float32 \(4,\) has 15 bytes"),
        (entry(ext((1 << 60,), "float32", bytes(4))), "has 4 bytes"),
        (entry(ext((4,), "int64", bytes(32))), "'int64'; weights are of"),
        (entry(ext((4,), "object", b"")), "'object'"),
        (entry(ext((4,), "float32")), "a list has 2 entries"),
        (entry(msgpack.ExtType(3, b"x")), "extension type 3 is no array"),
        (entry(msgpack.packb(ext((1,), "float32", bytes(4))) + b"\x00"), "length is not that of"),
        (entry(7), "is no array"),
        (entry({}), "is no array and no chunked one"),
        (entry(chunked(shape={"0": 2, "1": 3})), "has chunks of 16 bytes"),
        (entry(chunked(shape={"0": 2, "2": 2})), "its parts are numbered"),
        (entry(chunked(more=1)), "'more' is no part"),
        (entry(chunked(__msgpack_chunked_array__=False)), "no chunked one"),
        (entry(chunked(chunks=MIXED)), "of the types"),
        (entry(flax_bytes(torch.zeros(1), 9)) * 2, "there are two of it"),
    ],
    ids=range(15),
)  # fmt: skip
def test_entries_that_are_no_weights_are_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "params"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"transformer/ln_f/kernel is damaged .*{reason}"):
        index_stream(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "params"
    with pytest.raises(CheckpointError, match="cannot be read"):
        index_stream(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        index_stream(path)
    for content in (b"no weights at all", msgpack.packb({"a": 1}), msgpack.packb(["key"])):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"at the start, at byte 0, is damaged"):
            index_stream(path)
