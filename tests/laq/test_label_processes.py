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
from lapa_core.data.index import IndexConfig, build_index
from lapa_core.data.store import FrameStore
from lapa_core.laq.label import label
from lapa_core.laq.label_config import LaqLabelConfig
from lapa_core.laq.labels import LatentLabels
from tests.laq.test_label import GAP_S, files, save_model
from tests.toy import toy_store

av = pytest.importorskip("av")

CLIPS, LENGTH = 16, 40


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of videos, its index and a checkpoint."""
    root = tmp_path_factory.mktemp("world")
    write_videos(root / "videos")
    build_index(IndexConfig(data=root / "videos", out=root / "index", workers=1, progress=False))
    save_model(root / "checkpoint")
    return root


def write_videos(folder: Path) -> None:
    folder.mkdir()
    store = toy_store(episodes=CLIPS, length=LENGTH)
    for clip in range(CLIPS):
        with av.open(str(folder / f"{clip:02d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=5)
            stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
            for frame in store.frames[clip * LENGTH : (clip + 1) * LENGTH]:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))


def command(world: Path, out: Path, data: str = "index", **options: object) -> list[str]:
    fields = {
        "data": world / data,
        "checkpoint": world / "checkpoint",
        "out": out,
        "shard-rows": 4,
        "batch-size": 4,
        **options,
    }
    words = [str(word) for name, value in fields.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "lapa_core", "laq", "label", *words]


def run(words: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=environment(tmp_path), capture_output=True, text=True, timeout=120, check=False
    )


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "LAPA_CACHE": str(tmp_path / "cache")}


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """The folder that one process writes when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed") / "labels"
    label(
        LaqLabelConfig(
            data=world / "index",
            checkpoint=world / "checkpoint",
            out=folder,
            shard_rows=4,
            batch_size=4,
            progress=False,
        )
    )
    return folder


def test_every_pair_of_the_index_is_there_once(world, undisturbed):
    index = ClipIndex.load(world / "index")
    expected = [
        index.pairs(clip, GAP_S) + number * LENGTH for number, clip in enumerate(index.clips)
    ]
    labels = LatentLabels.load(undisturbed)
    assert np.array_equal(labels.pairs_P2, np.concatenate(expected))
    assert len(labels.pairs_P2) == CLIPS * (LENGTH - 2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(world, undisturbed, tmp_path, workers):
    out = tmp_path / "labels"
    words = command(world, out, workers=workers)
    process = subprocess.Popen(words, env=environment(tmp_path), stderr=subprocess.DEVNULL)
    first = out / "labels-00001.parquet"
    deadline = time.monotonic() + 60
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    facts = json.loads((out / "labels.json").read_text())
    assert facts["shards"] is None, "the kill came too late to mean anything"
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("labels-*.parquet")}
    done = run(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert files(out) == files(undisturbed)
    again = {name for name, changed in kept.items() if (out / name).stat().st_mtime_ns != changed}
    assert len(again) <= 1, "only a shard that was not noted yet may be made again"
    assert not living_workers(out)


def living_workers(out: Path) -> list[str]:
    """Processes that still work for this folder, after a while to end by themselves."""
    for _ in range(50):
        found = [
            path.parent.name
            for path in Path("/proc").glob("[0-9]*/environ")
            if _contains(path, str(out.parent / "cache"))
        ]
        if not found:
            return []
        time.sleep(0.1)
    return found


def _contains(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes()
    except OSError:  # ended meanwhile
        return False


@pytest.mark.slow
def test_a_dead_worker_costs_nothing_but_its_shard(world, undisturbed, tmp_path):
    out = tmp_path / "labels"
    process = subprocess.Popen(
        command(world, out, workers=2),
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / "labels-00001.parquet").exists() and process.poll() is None:
        time.sleep(0.002)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert "a worker process died" in messages
    assert files(out) == files(undisturbed)


def children(parent: int) -> list[int]:
    """Worker processes of a run: those of its children that were spawned by multiprocessing."""
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        int(pid)
        for pid in listed
        if b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_shard(world, undisturbed, tmp_path):
    out = tmp_path / "labels"
    words = command(world, out, **{"shard-rows": 40})
    limited = (
        "import resource, sys; from lapa_core.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)); main(sys.argv[1:])"
    )
    failed = run([sys.executable, "-c", limited, *words[3:]], tmp_path)
    assert failed.returncode == 1
    assert "cannot be written" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert {path.name for path in out.iterdir()} == {"labels.json", "labels.unfinished.jsonl"}
    assert run(words, tmp_path).returncode == 0
    assert np.array_equal(LatentLabels.load(out).codes_PK, LatentLabels.load(undisturbed).codes_PK)


@pytest.mark.slow
def test_two_processes_read_a_data_set_as_one_does(world, tmp_path):
    """Plain videos without an index, through the cache of decoded frames."""
    store = FrameStore.load(world / "videos", 32, cache_dir=tmp_path / "cache")
    one = label(
        LaqLabelConfig(
            data=world / "videos",
            checkpoint=world / "checkpoint",
            out=tmp_path / "one",
            shard_rows=40,
            progress=False,
        ),
        store,
    )
    words = command(
        world, tmp_path / "two", "videos", workers=2, **{"shard-rows": 40, "batch-size": 256}
    )
    done = run(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert files(one) == files(tmp_path / "two")


def test_a_mixture_has_labels_per_corpus_at_its_own_gap(world, tmp_path):
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(
        f"corpora:\n  - {{data: {world / 'index'}, gap_s: 0.4}}\n"
        f"  - {{data: {world / 'index'}, gap_s: 1.0, weight: 2}}\n"
    )
    config = LaqLabelConfig(
        data=mixture, checkpoint=world / "checkpoint", max_episodes=2, progress=False
    )
    folder = label(config)
    assert folder.parent == tmp_path / "mixture.yaml.latents"
    short, long = (LatentLabels.load(folder / name) for name in ("00_index", "01_index"))
    assert (short.gap_s, long.gap_s) == (0.4, 1.0)
    assert (len(short.pairs_P2), len(long.pairs_P2)) == (2 * (LENGTH - 2), 2 * (LENGTH - 5))
