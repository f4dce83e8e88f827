# SPDX-License-Identifier: Apache-2.0
"""Both stages under torchrun: two processes compute what one does, resume exactly, and leave one whole checkpoint."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lapa_core.checkpoint import load_config
from lapa_core.errors import CheckpointError, SetupError
from lapa_core.vla.checkpoint import load_vla
from tests.torchrun import REPOSITORY, TOLERANCE, metrics, torchrun
from tests.vla.together import CASES, NEAR, fresh_lwm, run_case, run_half

pytestmark = pytest.mark.slow
RESUMED = ("lwm_ddp", "lwm_fsdp2", "lwm_lora")


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Folder of the runs of two processes, whose cache is empty at first."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPA_CACHE", str(folder / "cache"))
        torchrun(2, REPOSITORY / "tests/vla/together.py", folder, cwd=folder)
    return folder


def alone(case: str):
    return replace(CASES[case], parallel="ddp")


def same_losses(rows, others) -> bool:
    assert len(rows) == len(others) == 4
    return all(
        mine == pytest.approx(theirs, rel=TOLERANCE, abs=1e-6)
        for mine, theirs in zip(rows, others, strict=True)
    )


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_vla(run_dir / "checkpoint").model.state_dict()


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(two, tmp_path, case):
    run_case(alone(case), two / "labels", tmp_path)
    assert same_losses(metrics(two / case), metrics(tmp_path))
    one, other = weights(tmp_path), weights(two / case)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("case", NEAR)
def test_bfloat16_over_float32_weights_stays_near_float32(two, case):
    near = metrics(two / NEAR[case][0])
    for mine, theirs in zip(metrics(two / case), near, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=2e-3)
        assert mine["loss"] != theirs["loss"], "it is not the same"
    kinds = {tensor.dtype for tensor in weights(two / case).values()}
    assert kinds == {torch.float32}, "written in the type that they came in"


@pytest.mark.parametrize("case", RESUMED)
def test_a_stopped_run_of_two_goes_on_bit_for_bit(two, case):
    straight, resumed = two / case, two / f"{case}_resumed"
    assert metrics(resumed) == metrics(straight)
    one, other = weights(straight), weights(resumed)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("case", RESUMED)
def test_a_state_of_two_goes_on_in_one(two, tmp_path, case):
    shutil.copytree(two / f"{case}_half", tmp_path / "run")
    run_case(alone(case), two / "labels", tmp_path / "run")
    rows = metrics(tmp_path / "run")
    assert rows[:2] == metrics(two / case)[:2], "those of the two processes"
    assert same_losses(rows, metrics(two / case))


def test_divided_states_are_parts_without_pickle_and_without_frozen_weights(two):
    files = {path.name for path in (two / "lwm_lora_half" / "state").iterdir()}
    parts = {f"shard-{i:05d}-model-00001-of-00001.safetensors" for i in (1, 2)}
    assert files == parts | {"config.json"}
    names = set().union(*(load_file(two / "lwm_lora_half" / "state" / part) for part in parts))
    moved = {name for name in names if "lora_" in name}
    assert moved
    assert not any("base_layer" in name or ".vqgan." in name for name in names)


def test_a_cut_part_of_a_state_is_named(two, tmp_path):
    shutil.copytree(two / "lwm_fsdp2_half", tmp_path / "run")
    part = next((tmp_path / "run" / "state").glob("shard-00002*"))
    part.write_bytes(part.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=part.name):
        run_case(alone("lwm_fsdp2"), two / "labels", tmp_path / "run")


def test_a_state_of_one_goes_on_divided_among_two(two, tmp_path):
    run_half(alone("lwm_fsdp2"), two / "labels", tmp_path / "run")
    program = (
        "import sys; from pathlib import Path; from tests.vla.together import *\n"
        "run_case(CASES['lwm_fsdp2'], Path(sys.argv[1]), Path(sys.argv[2])); leave()\n"
    )
    (tmp_path / "go_on.py").write_text(program)
    torchrun(2, tmp_path / "go_on.py", two / "labels", tmp_path / "run", cwd=tmp_path)
    assert same_losses(metrics(tmp_path / "run"), metrics(two / "lwm_fsdp2"))


def test_a_model_divided_and_joined_keeps_every_bit(two):
    joined, whole = load_file(two / "untrained.safetensors"), fresh_lwm().state_dict()
    assert joined.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(joined[name].to(tensor.dtype), tensor), name


def test_fsdp2_leaves_one_checkpoint_that_says_how_it_was_trained(two):
    training = load_config(two / "lwm_fsdp2" / "checkpoint", "pretrained")["training"]
    assert training["batch_size"] == 8
    assert "parallel" not in training, "it shapes nothing"


def test_fsdp2_without_torchrun_says_how_to_start(two, tmp_path):
    with pytest.raises(SetupError, match="torchrun --nproc-per-node"):
        run_case(CASES["lwm_fsdp2"], two / "labels", tmp_path)
