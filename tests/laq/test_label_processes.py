# SPDX-License-Identifier: Apache-2.0
"""`lapa laq label` as people run it: real processes, a real kill, a real full disk; the same bytes every time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lapa_core.data.clip_index import ClipIndex
from lapa_core.data.store import FrameStore
from lapa_core.laq.label import label
from lapa_core.laq.labels import LatentLabels
from tests.laq.conftest import LabelWorld
from tests.laq.test_label import GAP_S, files


def command(world: LabelWorld, out: Path, **options: object) -> list[str]:
    fields = {
        "data": world.root / "index",
        "checkpoint": world.root / "checkpoint",
        "out": out,
        "shard-rows": 4,
        "batch-size": 4,
        **options,
    }
    words = [str(word) for name, value in fields.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "lapa_core", "laq", "label", *words]


def run(words: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=environment(tmp_path), capture_output=True, text=True, timeout=300, check=False
    )


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "LAPA_CACHE": str(tmp_path / "cache")}


def test_every_pair_of_the_index_is_there_once(label_world, undisturbed):
    index = ClipIndex.load(label_world.root / "index")
    expected = [
        index.pairs(clip, GAP_S) + number * label_world.length
        for number, clip in enumerate(index.clips)
    ]
    labels = LatentLabels.load(undisturbed)
    assert np.array_equal(labels.pairs_P2, np.concatenate(expected))
    assert len(labels.pairs_P2) == label_world.clips * (label_world.length - 2)


@pytest.mark.slow
def test_a_run_killed_with_two_workers_goes_on_with_one_to_the_same_bytes(
    label_world, undisturbed, tmp_path
):
    out = tmp_path / "labels"
    words = command(label_world, out, workers=2)
    process = subprocess.Popen(words, env=environment(tmp_path), stderr=subprocess.DEVNULL)
    while not (out / "labels-00001.parquet").exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not living_processes(environment(tmp_path)["LAPA_CACHE"])
    facts = json.loads((out / "labels.json").read_text())
    assert facts["shards"] is None, "the kill came too late to mean anything"
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("labels-*.parquet")}
    label(label_world.config(out))
    assert files(out) == files(undisturbed)
    again = {name for name, changed in kept.items() if (out / name).stat().st_mtime_ns != changed}
    assert len(again) <= 1, "only a shard that was not noted yet may be made again"


def living_processes(text: str) -> list[str]:
    """Other processes with this text in their environment, after the time they have to end by themselves."""
    for _ in range(900):
        found = [
            path.parent.name
            for path in Path("/proc").glob("[0-9]*/environ")
            if path.parent.name != str(os.getpid()) and _contains(path, text)
        ]
        if not found:
            break
        time.sleep(0.1)
    return found


def _contains(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes()
    except OSError:  # ended meanwhile
        return False


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_shard(label_world, undisturbed, tmp_path):
    out = tmp_path / "labels"
    words = command(label_world, out, **{"shard-rows": 304})
    limited = (
        "import resource, sys; from lapa_core.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); main(sys.argv[1:])"
    )
    failed = run([sys.executable, "-c", limited, *words[3:]], tmp_path)
    assert failed.returncode == 1
    assert "cannot be written" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert {path.name for path in out.iterdir()} == {"labels.json", "labels.unfinished.jsonl"}
    label(label_world.config(out, shard_rows=304))
    assert np.array_equal(LatentLabels.load(out).codes_PK, LatentLabels.load(undisturbed).codes_PK)


@pytest.mark.slow
def test_two_processes_read_a_data_set_as_one_does(label_world, tmp_path, monkeypatch):
    """Plain videos without an index, through the cache of decoded frames."""
    monkeypatch.setenv("LAPA_CACHE", str(tmp_path / "cache"))
    changes = {"data": label_world.root / "videos", "shard_rows": 40}
    store = FrameStore.load(label_world.root / "videos", 32)
    one = label(label_world.config(tmp_path / "one", **changes), store)
    two = label(label_world.config(tmp_path / "two", workers=2, **changes))
    assert files(one) == files(two)


def test_a_mixture_has_labels_per_corpus_at_its_own_gap(label_world, tmp_path):
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(
        f"corpora:\n  - {{data: {label_world.root / 'index'}, gap_s: 0.4}}\n"
        f"  - {{data: {label_world.root / 'index'}, gap_s: 1.0, weight: 2}}\n"
    )
    folder = label(label_world.config(None, data=mixture, max_episodes=2))
    assert folder.parent == tmp_path / "mixture.yaml.latents"
    short, long = (LatentLabels.load(folder / name) for name in ("00_index", "01_index"))
    assert (short.gap_s, long.gap_s) == (0.4, 1.0)
    assert (len(short.pairs_P2), len(long.pairs_P2)) == (
        2 * (label_world.length - 2),
        2 * (label_world.length - 5),
    )
