# SPDX-License-Identifier: Apache-2.0
"""`lapa vla import-release`, with files in the release's format at toy widths."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from lapa_core.checkpoint import load_config
from lapa_core.errors import CheckpointError, ContractError
from lapa_core.vla import import_release as module
from lapa_core.vla.checkpoint import PRETRAINED, load_vla
from lapa_core.vla.import_release import ImportReleaseConfig, import_release
from lapa_core.vla.lwm.config import LwmConfig
from lapa_core.vla.lwm.release_names import release_tensors
from tests.vla.lwm_toys import TASKS, toy_inputs
from tests.vla.release_files import release_arrays, toy_release_model, write_params, write_release


@pytest.fixture(scope="module")
def model():
    return toy_release_model()


def config(folder, model, **changes) -> ImportReleaseConfig:
    base = ImportReleaseConfig(
        params=folder / "params",
        vqgan=folder / "vqgan",
        tokenizer=folder / "tokenizer.model",
        out=folder / "out",
        model=model.config,
        progress=False,
    )
    return replace(base, **changes)


def same_tensors(ours, theirs) -> None:
    ours = ours.state_dict()
    theirs = {name: t for name, t in theirs.state_dict().items() if ".action." not in name}
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name].to(tensor.dtype), tensor), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_bytes", [1 << 30, 1000])
def test_the_imported_model_is_the_released_one(tmp_path, model, dtype, chunk_bytes):
    folder = write_release(tmp_path, model, dtype, chunk_bytes)
    loaded = load_vla(import_release(config(folder, model)), PRETRAINED)
    same_tensors(loaded.model, model)
    assert {p.dtype for n, p in loaded.model.named_parameters() if "vqgan" not in n} == {dtype}
    assert loaded.model.latent == (4, 8)
    assert loaded.config["gap_s"] == 0.6
    assert {name: len(hashed) for name, hashed in loaded.config["imported"].items()} == {
        "params": 64, "vqgan": 64, "tokenizer.model": 64,
    }  # fmt: skip
    if dtype == torch.float32:
        inputs = toy_inputs(model, TASKS)
        codes = torch.zeros(len(TASKS), 4, dtype=torch.int64)
        ours, theirs = (m.latent_logits(inputs, codes) for m in (loaded.model, model))
        assert torch.equal(ours, theirs)
    assert list(tmp_path.glob(".*")) == []


def test_several_files_have_an_index(tmp_path, model):
    folder = write_release(tmp_path, model, torch.bfloat16, 5000)
    out = import_release(config(folder, model, max_file_gb=20e-6))
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    same_tensors(load_vla(out).model, model)


def test_the_released_model_has_its_number_of_parameters():
    assert sum(t.parameters for t in release_tensors(LwmConfig(), 8)) == 6_807_687_168


def test_every_fault_of_a_file_is_named_before_anything_is_written(tmp_path, model):
    folder = write_release(tmp_path, model)
    arrays = release_arrays(model)
    arrays["transformer", "ln_f", "scale"] = arrays.pop(("transformer", "ln_f", "kernel"))
    arrays["lm_head", "kernel"] = arrays["lm_head", "kernel"].T.contiguous()
    write_params(folder / "params", arrays)
    with pytest.raises(CheckpointError) as refused:
        import_release(config(folder, model))
    for fault in (
        "missing transformer/ln_f/kernel",
        "surplus transformer/ln_f/scale",
        "lm_head/kernel has shape (512, 32), not (32, 512)",
    ):
        assert fault in str(refused.value)
    with pytest.raises(CheckpointError, match="surplus transformer/dte/embedding"):
        import_release(config(write_release(tmp_path, model), model, latent=None))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["params", "tokenizer.model", "vqgan"]


def test_weights_without_a_latent_head_are_imported_as_such(tmp_path, model):
    folder = write_release(tmp_path, model)
    arrays = release_arrays(model)
    del arrays["transformer", "dte", "embedding"], arrays["delta_head", "kernel"]
    write_params(folder / "params", arrays)
    assert load_vla(import_release(config(folder, model, latent=None))).model.latent is None


def test_numbers_that_are_not_finite_are_named_with_their_layer(tmp_path, model):
    folder = write_release(tmp_path, model)
    arrays = release_arrays(model)
    key = ("transformer", "h", "scan_decoder", "feed_forward", "w2", "kernel")
    arrays[key][1, 3, 5] = torch.nan
    write_params(folder / "params", arrays)
    with pytest.raises(CheckpointError, match=r"feed_forward/w2/kernel, layer 1, .* not finite"):
        import_release(config(folder, model))
    assert not (folder / "out").exists()


def interrupt_after(monkeypatch, files: int) -> None:
    """Ctrl-C in the middle of the file after these."""
    real, done = module.write_safetensors, []

    def write(path, slots, tensors):
        if len(done) == files:
            next(iter(tensors))
            raise KeyboardInterrupt
        real(path, slots, tensors)
        done.append(path)

    monkeypatch.setattr(module, "write_safetensors", write)


def test_an_interrupted_import_goes_on_and_ends_the_same(tmp_path, model, monkeypatch):
    folder = write_release(tmp_path, model, torch.bfloat16, 5000)
    small = {"max_file_gb": 20e-6}
    straight = import_release(config(folder, model, out=tmp_path / "straight", **small))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            import_release(config(folder, model, **small))
    assert not (folder / "out").exists()
    kept = {path.name: path.stat().st_ino for path in (folder / ".out.importing").glob("model-*")}
    assert len(kept) == 2
    out = import_release(config(folder, model, **small))
    for path in straight.glob("model*"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert {name: (out / name).stat().st_ino for name in kept} == kept, "what was written is kept"
    assert load_config(out)["weights_sha256"] == load_config(straight)["weights_sha256"]


def test_an_unfinished_import_of_another_file_is_not_gone_on_with(tmp_path, model, monkeypatch):
    folder = write_release(tmp_path, model)
    small = {"max_file_gb": 20e-6}
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            import_release(config(folder, model, **small))
    arrays = release_arrays(model)
    arrays["transformer", "wte", "embedding"] += 1.0
    write_params(folder / "params", arrays)
    loaded = load_vla(import_release(config(folder, model, **small))).model
    theirs = model.state_dict()["tables.text.weight"]
    assert torch.equal(loaded.state_dict()["tables.text.weight"], theirs + 1.0)


def test_a_folder_of_something_else_and_settings_without_sense_are_refused(tmp_path, model):
    folder = write_release(tmp_path, model)
    (folder / "out").mkdir()
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        import_release(config(folder, model))
    for gap_s in (0.0, float("nan")):
        with pytest.raises(ContractError, match=f"gap_s is {gap_s}"):
            config(folder, model, gap_s=gap_s)
    with pytest.raises(ContractError, match="max_file_gb is 0"):
        config(folder, model, max_file_gb=0.0)
