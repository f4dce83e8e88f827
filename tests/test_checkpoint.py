# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: whole or not there, and never loaded when anything is wrong."""

import json

import pytest
import torch

from lapa_core.checkpoint import load_checkpoint, provenance, save_checkpoint
from lapa_core.checkpoint_files import INDEX_FILE
from lapa_core.errors import CheckpointError


def tensors():
    return {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


def test_round_trip_keeps_every_bit_and_type(tmp_path):
    save_checkpoint(tmp_path / "c", tensors(), {"kind": "laq", "width": 3})
    loaded, config = load_checkpoint(tmp_path / "c", kind="laq")
    assert all(
        torch.equal(loaded[k], v) and loaded[k].dtype == v.dtype for k, v in tensors().items()
    )
    assert config["width"] == 3


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    for width in (1, 2):
        save_checkpoint(tmp_path / "c", tensors(), {"kind": "laq", "width": width})
    assert load_checkpoint(tmp_path / "c")[1]["width"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_config_that_cannot_be_written_leaves_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "c", tensors(), {"kind": "laq", "width": 1})
    with pytest.raises(CheckpointError, match="not JSON-able"):
        save_checkpoint(tmp_path / "c", tensors(), {"kind": "laq", "width": float("nan")})
    assert load_checkpoint(tmp_path / "c")[1]["width"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.jpg").write_bytes(b"precious")
    with pytest.raises(CheckpointError, match="left alone"):
        save_checkpoint(tmp_path / "photos", tensors(), {"kind": "laq"})
    assert (tmp_path / "photos" / "x.jpg").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "damage", ["flip", "cut", "no weights", "no config", "bad json", "no kind"]
)
def test_damage_is_named(tmp_path, damage):
    folder = save_checkpoint(tmp_path / "c", tensors(), {"kind": "laq"})
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "flip":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-4])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no config":
        config.unlink()
    elif damage == "bad json":
        config.write_text("{")
    else:
        config.write_text(json.dumps({"width": 3}))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)


def test_another_kind_is_refused(tmp_path):
    save_checkpoint(tmp_path / "c", tensors(), {"kind": "laq"})
    with pytest.raises(CheckpointError, match="kind 'laq'; 'policy' is needed"):
        load_checkpoint(tmp_path / "c", kind="policy")


def test_provenance_names_command_and_commit():
    made = provenance()
    assert set(made) == {"command", "commit", "version", "date"}
    assert made["command"]


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ("--out", "--out"),
        ("outputs/a", "outputs/a"),
        ("{here}/outputs/a", "outputs/a"),
        ("--out={here}/outputs/a=b", "--out=outputs/a=b"),
        ("folder:={elsewhere}/secret/b", "folder:=b"),
        ("{elsewhere}/secret/b", "b"),
        ("{here}/../b", "b"),
        ("ws://host:8000", "ws://host:8000"),
        ("--speed=0.5", "--speed=0.5"),
    ],
)
def test_provenance_does_not_say_where_a_machine_keeps_its_files(
    tmp_path, monkeypatch, given, recorded
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    given = given.format(here=here, elsewhere=tmp_path / "elsewhere")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "bin/lapa"), given])
    assert provenance()["command"] == f"lapa {recorded}"


def many():
    """Five tensors of 40 bytes: two fit into a file of 100."""
    return {f"t{i}": torch.full((10,), float(i)) for i in range(5)}


def test_a_large_model_is_several_files_and_an_index(tmp_path):
    folder = save_checkpoint(
        tmp_path / "c", iter(many().items()), {"kind": "policy"}, max_file_bytes=100
    )
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert files == [f"model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]
    index = json.loads((folder / INDEX_FILE).read_text())
    assert index["weight_map"]["t3"] == files[1]
    assert index["metadata"]["total_size"] == 200
    loaded = load_checkpoint(folder)[0]
    assert loaded.keys() == many().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in many().items())


@pytest.mark.parametrize("damage", ["flip", "missing", "index"])
def test_damage_among_several_files_is_named(tmp_path, damage):
    folder = save_checkpoint(tmp_path / "c", many(), {"kind": "policy"}, max_file_bytes=100)
    part = folder / "model-00002-of-00003.safetensors"
    if damage == "flip":
        data = bytearray(part.read_bytes())
        data[-1] ^= 1
        part.write_bytes(data)
    elif damage == "missing":
        part.unlink()
    else:
        part = folder / INDEX_FILE
        part.write_text(part.read_text().replace("00001", "00003"))
    with pytest.raises(CheckpointError, match=part.name):
        load_checkpoint(folder)
