# SPDX-License-Identifier: Apache-2.0
"""Pretraining from an index: each frame meets its own codes and words, nothing is cached, a resume repeats the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lapa_core.data.clip_index import ClipIndex
from lapa_core.data.index import IndexConfig, build_index
from lapa_core.errors import ContractError, DataError
from lapa_core.laq.label import label
from lapa_core.laq.label_config import LaqLabelConfig
from lapa_core.laq.labels import LatentLabels
from lapa_core.presets import VLA_PRETRAIN
from lapa_core.train.sampling import Part
from lapa_core.vla import pretrain
from lapa_core.vla.checkpoint import load_vla
from lapa_core.vla.clip_batches import ClipBatches
from lapa_core.vla.config import PretrainConfig
from lapa_core.vla.history import HISTORY, NO_CODE, earlier_codes
from tests.laq.test_label import save_model
from tests.torchrun import until_half

SIDE, LENGTH, RATE_HZ = 32, 9, 5.0
LENGTHS = (9, 7, 12, 3, 8)
CPU = torch.device("cpu")


def draw(folder: Path, number: int, length: int) -> None:
    """Write a clip whose frames are all different: clip and frame number are their colour."""
    folder.mkdir(parents=True)
    for frame in range(length):
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        picture[:] = (40 * number, 15 * frame, 0)
        picture[4 : 4 + 2 * frame, 8:20] = 255
        Image.fromarray(picture).save(folder / f"{frame:03d}.png")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with pictures, its index, and the labels that a fresh latent action model makes of the index."""
    root = tmp_path_factory.mktemp("clips")
    words = {}
    for number, length in enumerate(LENGTHS):
        draw(root / "data" / f"clip{number}", number, length)
        words[f"clip{number}"] = f"do number {number}"
    rows = [json.dumps({"video": name, "instruction": text}) for name, text in words.items()]
    (root / "data" / "instructions.jsonl").write_text("\n".join(rows) + "\n")
    build_index(
        IndexConfig(data=root / "data", out=root / "index", fps=RATE_HZ, workers=1, progress=False)
    )
    save_model(root / "laq")
    label(
        LaqLabelConfig(
            data=root / "index", checkpoint=root / "laq", out=root / "labels", gap_s=0.4, progress=False
        )
    )  # fmt: skip
    return root


def config_of(world: Path, out: Path, **changes) -> PretrainConfig:
    return replace(
        VLA_PRETRAIN["debug"],
        **{
            "data": world / "index", "labels": world / "labels", "out": out, "max_episodes": 0, "steps": 4,
            "batch_size": 4, "save_every": 2, "log_every": 1, "workers": 0, "progress": False, "history": 1,
            "model": replace(VLA_PRETRAIN["debug"].model, image_px=SIDE), **changes,
        },
    )  # fmt: skip


def opened(world: Path, tmp_path: Path, part: Part | None = None, **changes) -> ClipBatches:
    return ClipBatches(
        config_of(world, tmp_path, **changes),
        ClipIndex.load(world / "index"),
        LatentLabels.load(world / "labels"),
        image_px=SIDE,
        part=part or Part(),
        device=CPU,
    )


def test_each_frame_meets_its_own_codes_words_and_past(world, tmp_path):
    labels = LatentLabels.load(world / "labels")
    starts = np.cumsum([0, *LENGTHS])
    earlier = earlier_codes(labels.pairs_P2, labels.codes_PK, int(starts[-1]), 1)
    codes = dict(zip(labels.pairs_P2[:, 0].tolist(), labels.codes_PK, strict=True))
    assert len({tuple(code) for code in codes.values()}) > 1, "the codes tell frames apart"
    batches, seen = opened(world, tmp_path), set()
    for batch in (batches.batch(step) for step in range(40)):
        numbers = np.rint(255 * batch.image_BCHW[:, :2, 0, 0].numpy())
        for i, (red, green) in enumerate(numbers.tolist()):
            clip, frame = round(red / 40), round(green / 15)
            row = int(starts[clip]) + frame
            seen.add(row)
            assert batch.words[i] == f"do number {clip}"
            assert np.array_equal(batch.labels["codes"][i], codes[row])
            assert np.array_equal(batch.extra[HISTORY][i], earlier[row])
    batches.close()
    assert seen == set(codes), "every labelled frame, and no other"
    assert (earlier[sorted(seen)] != NO_CODE).any()


def test_two_processes_share_the_batch_of_one(world, tmp_path):
    whole = opened(world, tmp_path)
    parts = [opened(world, tmp_path, Part(rank=rank, world=2)) for rank in range(2)]
    for step in range(6):
        halves = [part.batch(step) for part in parts]
        one = whole.batch(step)
        assert torch.equal(torch.cat([half.image_BCHW for half in halves]), one.image_BCHW)
        assert [word for half in halves for word in half.words] == one.words
    reported = [[batch.words for batch in part.report()] for part in parts]
    assert reported[0] == reported[1], "figures are taken over the same frames everywhere"
    assert max(len(words) for words in reported[0]) == 2, "as many at a time as in training"
    small = opened(world, tmp_path, micro_batch=1)
    assert {len(batch.words) for batch in small.report()} == {1}
    for batches in (whole, small, *parts):
        batches.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_repeats_the_straight_one_and_nothing_is_cached(
    world, tmp_path, monkeypatch, workers
):
    monkeypatch.setenv("LAPA_CACHE", str(tmp_path / "cache"))
    straight = pretrain.train(config_of(world, tmp_path / "a"))
    half = config_of(world, tmp_path / "b", workers=workers)
    until_half(lambda: pretrain.train(half))
    resumed = pretrain.train(half)
    assert resumed.history == straight.history[2:]
    one, other = (load_vla(run.checkpoint).model.state_dict() for run in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (tmp_path / "cache").exists()


def test_what_an_index_has_not_is_refused(world, tmp_path):
    with pytest.raises(ContractError, match="length_window is 4"):
        opened(world, tmp_path, length_window=4)
    draw(tmp_path / "other" / "clip0", 1, LENGTH)
    build_index(
        IndexConfig(data=tmp_path / "other", out=tmp_path / "i", fps=5.0, workers=1, progress=False)
    )
    with pytest.raises(DataError, match="lapa laq label"):
        pretrain.train(config_of(world, tmp_path / "run", data=tmp_path / "i"))
    with pytest.raises(DataError, match="max-episodes"):
        pretrain.train(config_of(world, tmp_path / "run", max_episodes=2))
    with pytest.raises(ContractError, match="one of their indices"):
        pretrain.train(config_of(world, tmp_path / "run", data=tmp_path / "mixture.yaml"))
    cameras = replace(VLA_PRETRAIN["hf_debug"].model, cameras=("front", "wrist"))
    with pytest.raises(ContractError, match="one camera"):
        pretrain.train(config_of(world, tmp_path / "run", model=cameras))
