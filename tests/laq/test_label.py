# SPDX-License-Identifier: Apache-2.0
"""Labels: nothing missing or double, nothing believed that is damaged or of another model."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lapa_core.errors import ContractError, DataError
from lapa_core.laq.checkpoint import load_laq, save_laq
from lapa_core.laq.config import ConvLaqConfig
from lapa_core.laq.conv import ConvLaq
from lapa_core.laq.label import label
from lapa_core.laq.label_config import LaqLabelConfig
from lapa_core.laq.label_plan import SPAN_ROWS, Span, plan_shards
from lapa_core.laq.label_shard import make_shard
from lapa_core.laq.label_source import identify
from lapa_core.laq.labels import LatentLabels
from tests.toy import toy_store

GAP_S = 0.4


def save_model(directory: Path, seed: int = 0) -> Path:
    """An untrained model whose codes are fitted to the toy, so that all are used."""
    torch.manual_seed(seed)
    config = ConvLaqConfig(width=8, codes=4)
    model = ConvLaq(config).eval()
    store = toy_store()
    pairs = store.valid_pairs(GAP_S)
    vectors = model.encode(store.frames[pairs[:, 0]], store.frames[pairs[:, 1]]).vectors_BKD
    model.fit_codebook(torch.from_numpy(vectors), seed)
    return save_laq(directory, model, config, gap_s=GAP_S)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("laq") / "checkpoint")


def config(tmp_path: Path, checkpoint: Path, **changes) -> LaqLabelConfig:
    fields = {"out": tmp_path / "labels", "shard_rows": 12, "batch_size": 8, **changes}
    return LaqLabelConfig(data=tmp_path / "toy", checkpoint=checkpoint, progress=False, **fields)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_pair_is_labelled_once_with_codes_and_vectors(tmp_path, checkpoint):
    store = toy_store()
    folder = label(config(tmp_path, checkpoint), store)
    assert len(files(folder)) == 1 + 6, "12 episodes of 6 pairs, at most 12 to a shard"
    labels = LatentLabels.load(folder, vectors=True)
    assert np.array_equal(labels.pairs_P2, store.valid_pairs(GAP_S))
    model, facts = load_laq(checkpoint)
    first, later = labels.pairs_P2.T
    expected = model.encode(store.frames[first], store.frames[later])
    assert np.array_equal(labels.codes_PK, expected.codes_BK)
    np.testing.assert_allclose(labels.vectors_PKD, expected.vectors_BKD, atol=1e-5)
    assert np.array_equal(labels.centres_ND, model.centres())
    assert (labels.checkpoint_hash, labels.gap_s) == (facts["weights_sha256"], GAP_S)
    assert LatentLabels.load(folder).vectors_PKD is None


def test_a_row_says_which_frame_of_which_clip(tmp_path, checkpoint):
    folder = label(config(tmp_path, checkpoint), toy_store())
    row = pq.read_table(folder / "labels-00001.parquet").slice(7, 1).to_pylist()[0]
    vector, codes = row.pop("vector"), row.pop("codes")
    assert row == {"episode": 3, "clip": "episode_000003", "frame": 1, "later": 3, "time_s": 0.2}
    assert len(codes) == 1
    assert len(vector) == load_laq(checkpoint)[0].centres().shape[1]


def test_the_default_folder_lies_beside_the_data(tmp_path, checkpoint):
    folder = label(config(tmp_path, checkpoint, out=None), toy_store())
    made_by = load_laq(checkpoint)[1]["weights_sha256"]
    assert folder == tmp_path / "toy.latents" / made_by[:12]


def test_equal_input_gives_equal_bytes_whatever_torch_does_elsewhere(tmp_path, checkpoint):
    one = label(config(tmp_path, checkpoint), toy_store())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        other = label(config(tmp_path, checkpoint, out=tmp_path / "other"), toy_store())
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert files(one) == files(other)


def test_damaged_and_missing_shards_are_found_and_made_again(tmp_path, checkpoint):
    store = toy_store()
    folder = label(config(tmp_path, checkpoint), store)
    whole = files(folder)
    names = sorted(whole)

    def spoil() -> None:
        """Cut one short, flip a bit in the middle of one, drop one, put one in another's place."""
        (folder / names[2]).write_bytes(whole[names[2]][:-30])
        middle = len(whole[names[3]]) // 2
        flipped = bytearray(whole[names[3]])
        flipped[middle] ^= 1
        (folder / names[3]).write_bytes(flipped)
        (folder / names[4]).unlink()
        shutil.copy(folder / names[1], folder / names[5])

    spoil()
    with pytest.raises(DataError, match=r"labels-00002.parquet is not what was written"):
        LatentLabels.load(folder)
    label(config(tmp_path, checkpoint), store)
    assert files(folder) == whole

    spoil()
    facts = json.loads(whole["labels.json"])
    (folder / "labels.json").write_text(json.dumps({**facts, "shards": None}))
    journal = "".join(f"{json.dumps(entry)}\n" for entry in enumerate(facts["shards"]))
    (folder / "labels.unfinished.jsonl").write_text(journal[:-20])
    (folder / ".labels-00002.parquet.123").write_bytes(b"half")
    with pytest.raises(DataError, match="not finished"):
        LatentLabels.load(folder)
    label(config(tmp_path, checkpoint), store)
    assert files(folder) == whole


def test_whole_shards_are_not_made_again(tmp_path, checkpoint):
    store = toy_store()
    folder = label(config(tmp_path, checkpoint), store)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    (folder / "labels-00003.parquet").unlink()
    label(config(tmp_path, checkpoint), store)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert {name for name in before if before[name] != after[name]} == {"labels-00003.parquet"}


def test_a_second_run_at_once_waits_and_makes_nothing(tmp_path, checkpoint, monkeypatch):
    made = []

    def slowly(shard, **given):
        made.append(shard.number)
        time.sleep(0.05)
        return make_shard(shard, **given)

    monkeypatch.setattr("lapa_core.laq.label.make_shard", slowly)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(label, config(tmp_path, checkpoint), toy_store()) for _ in range(2)]
        (folder,) = {run.result() for run in runs}
    assert made == list(range(6))
    assert len(LatentLabels.load(folder).codes_PK) == 12 * 6


def test_a_folder_with_something_else_is_left_alone(tmp_path, checkpoint):
    store = toy_store()
    folder = label(config(tmp_path, checkpoint), store)
    before = files(folder)
    other = save_model(tmp_path / "other_checkpoint", seed=1)
    one, two = (load_laq(path)[1]["weights_sha256"][:12] for path in (checkpoint, other))
    with pytest.raises(DataError, match=f"of checkpoint {one}, not of {two}"):
        label(config(tmp_path, other), store)
    with pytest.raises(DataError, match=r"of the data .* not of"):
        label(config(tmp_path, checkpoint), toy_store(seed=1))
    with pytest.raises(DataError, match=r"gap_s 0.4 not 0.2"):
        label(config(tmp_path, checkpoint, gap_s=0.2), store)
    assert files(folder) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="not empty"):
        label(config(tmp_path, checkpoint, out=tmp_path / "mine"), store)


def test_another_gap_gives_other_pairs(tmp_path, checkpoint):
    store = toy_store()
    labels = LatentLabels.load(label(config(tmp_path, checkpoint, gap_s=0.2), store))
    assert labels.gap_s == 0.2
    assert np.array_equal(labels.pairs_P2, store.valid_pairs(0.2))


def test_what_is_no_folder_of_labels_is_refused(tmp_path):
    (tmp_path / "old.npz").write_bytes(b"PK")
    for path in (tmp_path / "missing", tmp_path / "old.npz"):
        with pytest.raises(DataError, match="lapa laq label"):
            LatentLabels.load(path)


def test_frames_in_memory_stay_in_this_process(tmp_path, checkpoint):
    with pytest.raises(DataError, match="in this process"):
        label(config(tmp_path, checkpoint, workers=2), toy_store())


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"gap_s": -1.0}, {"shard_rows": 0}])
def test_wrong_settings_are_refused(tmp_path, checkpoint, wrong):
    with pytest.raises(ContractError, match=next(iter(wrong))):
        config(tmp_path, checkpoint, **wrong)


def test_shards_hold_whole_clips_but_divide_long_ones():
    plan = plan_shards([5, 0, 4, 3, 2 * SPAN_ROWS + 1], 10 + SPAN_ROWS)
    assert [shard.spans for shard in plan] == [
        (Span(0, 0, 5), Span(2, 0, 4), Span(3, 0, 3)),
        (Span(4, 0, SPAN_ROWS),),
        (Span(4, SPAN_ROWS, 2 * SPAN_ROWS), Span(4, 2 * SPAN_ROWS, 2 * SPAN_ROWS + 1)),
    ]
    assert [shard.rows for shard in plan] == [12, SPAN_ROWS, 1 + SPAN_ROWS]


def test_the_identity_is_that_of_the_frames():
    store = toy_store()
    assert identify(store) == identify(store.subset(range(store.num_episodes)))
    assert identify(store) != identify(store.subset(range(11)))
    assert not identify(store).matches(identify(toy_store(seed=1)))
