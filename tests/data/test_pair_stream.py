# SPDX-License-Identifier: Apache-2.0
"""The clip pool: pairs are as far apart as they should be, and batches depend on seed and step alone.

Frames carry their number: clip c holds 100 c to 100 c + 59.
"""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lapa_core.data.clip_pool import ClipPool, check_memory
from lapa_core.data.index import IndexConfig, build_index
from lapa_core.data.mixture import Corpus
from lapa_core.data.pair_stream import PoolOptions, open_pairs
from lapa_core.data.visits import VisitPlan, block_counts, corpus_windows, window_edges
from lapa_core.errors import ContractError, DataError, SetupError

GAP_S = 0.6
OPTIONS = PoolOptions(pairs_per_visit=4, span_frames=20, slots_per_sample=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory, stamps, write_video):
    """Six clips of 60 frames in three containers: constant and variable rate, short and long groups."""
    folder = tmp_path_factory.mktemp("clips")
    regular_s = np.arange(60) / 10
    varying_s = np.cumsum(np.random.default_rng(0).choice([0.06, 0.1, 0.14], 60))
    quick = {"deadline": "realtime", "cpu-used": "8"}
    kinds = [
        ("0.mp4", "libx264", {"g": "12"}, regular_s), ("1.mp4", "libx264", {"g": "250"}, varying_s),
        ("2.webm", "libvpx-vp9", {**quick, "g": "250"}, regular_s), ("3.webm", "libvpx-vp9", quick, varying_s),
        ("4.mkv", "libx264", {"g": "5", "bf": "2"}, regular_s), ("5.mkv", "libx264", {}, varying_s),
    ]  # fmt: skip
    for number, (name, codec, options, times_s) in enumerate(kinds):
        write_video(folder / name, stamps.clip(100 * number, 60, 32), times_s, codec, options)
    return folder


@pytest.fixture(scope="module")
def index(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("index")
    return build_index(IndexConfig(data=clips, out=out, workers=1, progress=False)), out


def open_stream(out, **options):
    defaults = {"image_px": 32, "batch_size": 6, "gap_s": GAP_S, "workers": 0, "options": OPTIONS}
    return open_pairs(out, **{**defaults, **options})


def batches(out, first=0, last=12, **options):
    with open_stream(out, first_step=first, **options) as stream:
        return [stream.batch(step) for step in range(first, last)]


def same(one, other):
    return all(
        np.array_equal(a.x0_BSSC, b.x0_BSSC) and np.array_equal(a.x1_BSSC, b.x1_BSSC)
        for a, b in zip(one, other, strict=True)
    )


def test_pairs_are_the_gap_apart(index, stamps):
    """No pair is clamped to a clip's end, of two clips, or nearer to another time than to the gap."""
    index, out = index
    seen = Counter()
    for batch in batches(out, last=60):
        assert batch.actions_BA is None
        first, later = stamps.read_all(batch.x0_BSSC), stamps.read_all(batch.x1_BSSC)
        for a, b in zip(first, later, strict=True):
            assert a // 100 == b // 100
            clip = index.clips[a // 100]
            times_s = clip.times_s
            gap_s = times_s[b % 100] - times_s[a % 100]
            assert abs(gap_s - GAP_S) <= 0.5 * clip.duration_s / (len(clip) - 1) + 1e-6
            assert np.abs(times_s - times_s[a % 100] - GAP_S).min() == pytest.approx(
                abs(gap_s - GAP_S), abs=2e-3
            )
            seen[a, b] += 1
    assert {a // 100 for a, _ in seen} == set(range(6))
    assert max(a % 100 for a, _ in seen) > 48  # the ends are reached
    assert len(seen) > 150


def test_random_gaps_stay_in_their_range(index, stamps):
    gaps_s = []
    for batch in batches(index[1], last=40, gap_s=None, gap_range_s=(0.3, 1.5)):
        first, later = stamps.read_all(batch.x0_BSSC), stamps.read_all(batch.x1_BSSC)
        for a, b in zip(first, later, strict=True):
            times_s = index[0].clips[a // 100].times_s
            gaps_s.append(times_s[b % 100] - times_s[a % 100])
    assert 0.2 < min(gaps_s) < 0.4
    assert 1.4 < max(gaps_s) < 1.6
    assert 0.7 < np.mean(gaps_s) < 1.0
    with pytest.raises(DataError, match="longest must not be below"):
        open_stream(index[1], gap_range_s=(0.6, 0.3))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_workers_change_nothing(index, workers):
    assert same(batches(index[1], workers=workers), batches(index[1]))


@pytest.mark.parametrize("first", [1, 5, 11])
def test_resumed_run_goes_on_as_the_straight_one(index, first):
    assert same(batches(index[1], first=first), batches(index[1])[first:])


@pytest.mark.slow
def test_resumed_run_with_workers(index):
    assert same(batches(index[1], first=7, workers=2), batches(index[1])[7:])


def test_steps_may_be_asked_for_in_any_order(index):
    straight = batches(index[1])
    with open_stream(index[1]) as stream:
        for step in (3, 4, 0, 11, 10):
            assert same([stream.batch(step)], [straight[step]])


def test_ranks_divide_the_batch_of_one_process(index):
    """Sample by sample, and no two ranks decode the same visit."""
    whole = batches(index[1])
    for world in (2, 3):
        parts = [batches(index[1], rank=rank, world=world) for rank in range(world)]
        for step, batch in enumerate(whole):
            joint = np.concatenate([part[step].x1_BSSC for part in parts])
            np.testing.assert_array_equal(joint, batch.x1_BSSC)
    with open_stream(index[1], rank=0, world=2) as one, open_stream(index[1], rank=1, world=2) as two:  # fmt: skip
        assert not set(one._live) & set(two._live)


def test_seeds_differ(index):
    assert not same(batches(index[1], last=3), batches(index[1], last=3, seed=1))


def test_batch_that_cannot_be_shared_is_refused(index):
    with pytest.raises(ContractError, match="batch_size is 6"):
        open_stream(index[1], world=4)
    with pytest.raises(DataError, match="gap_s is needed"):
        open_stream(index[1], gap_s=None)
    with pytest.raises(DataError, match=r"no pair of frames lies 60 s apart.*longest lasts"):
        open_stream(index[1], gap_s=60)
    with pytest.raises(DataError, match="GiB"):
        open_stream(index[1], batch_size=10**6)


def test_pools_of_one_machine_must_fit_together(monkeypatch):
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    check_memory(half)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(DataError, match=r"2 x .* GiB are needed"):
        check_memory(half)


def test_corpora_have_their_weights_and_gaps(index, clips, tmp_path, stamps, write_video):
    (tmp_path / "people").mkdir()
    for number in (7, 8):
        frames = stamps.clip(100 * number, 40, 32)
        write_video(tmp_path / "people" / f"{number}.mp4", frames, np.arange(40) / 10)
    build_index(
        IndexConfig(data=tmp_path / "people", out=tmp_path / "index", workers=1, progress=False)
    )
    (tmp_path / "mixture.yaml").write_text(
        f"corpora: [{{data: {index[1]}, gap_s: 0.6, weight: 3}}, {{data: index, gap_s: 2.4}}]"
    )
    gaps = Counter()
    for batch in batches(tmp_path / "mixture.yaml", last=80, gap_s=None):
        first, later = stamps.read_all(batch.x0_BSSC), stamps.read_all(batch.x1_BSSC)
        gaps.update(b - a for a, b in zip(first, later, strict=True) if a >= 700)
    assert set(gaps) == {24}
    assert gaps[24] / (80 * 6) == pytest.approx(1 / 4, abs=0.06)
    assert block_counts([3.0, 1.0]).tolist() == [768, 256]
    assert block_counts([1, 1, 1]).sum() == 1024
    with pytest.raises(DataError, match="share below"):
        block_counts([1.0, 1e-5])


def test_more_corpora_than_a_byte_counts(index):
    """Each of them is visited at its share."""
    corpora = [Corpus(index=index[0], gap_s=GAP_S)] * 200
    plan = VisitPlan(corpora, pairs_per_visit=1, span_frames=60, seed=0)
    seen = Counter(plan.visit(number).corpus for number in range(1024))
    assert [seen[corpus] for corpus in range(200)] == block_counts([1.0] * 200).tolist()


@pytest.mark.parametrize("span", [5, 20, 48, 100])
def test_windows_divide_the_pairs_of_a_clip(index, span):
    index, _ = index
    for clip in index.clips:
        edges = window_edges(len(clip), clip.keyframes, span)
        assert edges[0] == 0
        assert edges[-1] == len(clip)
        assert np.diff(edges).min() > 0
        assert np.diff(edges).max() <= span
    corpus = Corpus(index=index, gap_s=GAP_S, weight=1)
    for place, clip in enumerate(index.clips):
        rows = [row for row in corpus_windows(corpus, span).tolist() if row[0] == place]
        covered = [number for _, a, b in rows for number in range(a, b)]
        assert covered == list(range(len(index.pairs(clip, GAP_S))))
    keyframes = index.clips[4].keyframes
    assert set(window_edges(60, keyframes, 20)[:-1]) <= set(keyframes.tolist())


@pytest.mark.parametrize("group", [1, 7, 12, 49, 50, 60, 250])
def test_no_window_is_much_shorter_than_the_span(group):
    """Each window yields K pairs: those of a short one would be drawn far more often than others."""
    for count in (48, 49, 50, 97, 300, 1000):
        edges = window_edges(count, np.arange(0, count, group, dtype=np.int32), 48)
        widths = np.diff(edges)
        assert (edges[0], edges[-1]) == (0, count)
        assert widths.max() <= 48
        assert widths.min() >= min(count, 12)


def test_every_window_is_visited_once_an_epoch(index):
    index, _ = index
    plan = VisitPlan(
        [Corpus(index=index, gap_s=GAP_S, weight=1)], pairs_per_visit=3, span_frames=20, seed=0
    )
    rows = plan.windows_W3[0].tolist()
    for epoch in (0, 1):
        seen = []
        for number in range(epoch * len(rows), (epoch + 1) * len(rows)):
            visit = plan.visit(number)
            pairs = index.pairs(visit.clip, GAP_S).tolist()
            drawn = [pairs.index(pair) for pair in visit.frames[visit.places_K2].tolist()]
            assert len(set(drawn)) == 3
            seen += [row for row in rows if row[0] == visit.clip.number and row[1] <= drawn[0] < row[2]]  # fmt: skip
            assert seen[-1][1] <= min(drawn) <= max(drawn) < seen[-1][2]
        assert sorted(seen) == sorted(rows)


@pytest.fixture
def broken(clips, tmp_path):
    """An index of six clips, two of which came to harm after the scan: one cut, one gone."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in clips.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    build_index(IndexConfig(data=folder, out=tmp_path / "index", workers=1, progress=False))
    (folder / "0.mp4").unlink()
    data = (folder / "5.mkv").read_bytes()
    (folder / "5.mkv").write_bytes(data[: len(data) // 3])
    return tmp_path / "index"


@pytest.mark.slow
def test_clips_that_fail_are_reported_counted_and_replaced(broken, stamps, caplog):
    with open_stream(broken, workers=2) as stream:
        found = [stream.batch(step) for step in range(40)]
        assert set(stream.failures) == {"0.mp4", "5.mkv"}
        assert "missing" in stream.failures["0.mp4"]
        assert stream.failed_visits >= 2
    assert "clip 0.mp4 is left out" in caplog.text
    shown = {number // 100 for batch in found for number in stamps.read_all(batch.x0_BSSC)}
    assert shown >= {1, 2, 3, 4}
    assert 0 not in shown
    assert same(found[20:], batches(broken, first=20, last=40))


def test_data_that_is_gone_ends_the_run(broken):
    for path in (broken.parent / "broken").iterdir():
        path.unlink()
    with (
        pytest.raises(DataError, match="20 clips in a row could not be decoded"),
        open_stream(broken) as stream,
    ):
        stream.batch(0)


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_worker_that_dies_is_replaced(index, caplog):
    straight = batches(index[1], last=30)
    with open_stream(index[1], workers=2) as stream:
        found = [stream.batch(step) for step in range(10)]
        for pid in stream.worker_pids():
            os.kill(pid, signal.SIGKILL)
        found += [stream.batch(step) for step in range(10, 30)]
        assert stream.worker_deaths == 2
        assert not stream.failures
    assert same(found, straight)
    assert "a decoding process ended with status -9" in caplog.text


@pytest.mark.slow
def test_clip_on_which_workers_die_is_given_up(index, caplog):
    """A request that crashes the decoder, here one for more frames than its slot has, costs only its clip."""
    index, _ = index
    from lapa_core.data.clip_frames import make_request

    pool = ClipPool(slots=2, frames=4, image_px=32, workers=1)
    try:
        pool.submit(0, 0, make_request(index.root, index.clips[0], np.arange(9)))
        pool.submit(1, 1, make_request(index.root, index.clips[0], np.arange(4)))
        done = {}
        while len(done) < 2:
            pool.wait(None)
            done.update(pool.finished())
        assert "3 decoding processes died" in done[0]
        assert done[1] == ""
        assert pool.deaths == 3
    finally:
        pool.close()


@pytest.mark.slow
def test_worker_that_hangs_is_ended(index):
    pool = ClipPool(slots=1, frames=4, image_px=32, workers=1, timeout_s=2.0)
    try:
        from lapa_core.data.clip_frames import make_request

        (pid,) = pool.pids()
        pool.submit(0, 0, make_request(index[0].root, index[0].clips[0], np.arange(4)))
        while not pool.finished():
            time.sleep(0.01)
        os.kill(pid, signal.SIGSTOP)
        pool.submit(1, 0, make_request(index[0].root, index[0].clips[0], np.arange(4)))
        pool.wait(1)
        assert pool.finished() == {1: ""}
        assert pool.pids() != [pid]
    finally:
        pool.close()


@pytest.mark.slow
def test_worker_that_cannot_start_is_an_error(index, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with (
        pytest.raises(SetupError, match="before it started"),
        open_stream(index[1], workers=1) as stream,
    ):
        stream.batch(0)


def named_memory(pid="self"):
    """Files of /dev/shm that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if "/dev/shm/" in line}


@pytest.mark.slow
def test_nothing_is_left_behind(index):
    before, files = named_memory(), len(os.listdir("/proc/self/fd"))
    stream = open_stream(index[1], workers=2)
    pids = stream.worker_pids()
    stream.batch(0)
    assert len(alive(pids)) == 2
    assert named_memory() == before
    assert not named_memory(pids[0])
    assert "memfd:lapa-clips" in Path(f"/proc/{pids[0]}/maps").read_text()
    stream.close()
    stream.close()
    assert not alive(pids)
    assert len(os.listdir("/proc/self/fd")) == files
    assert "memfd:lapa-clips" not in Path("/proc/self/maps").read_text()


@pytest.mark.slow
def test_workers_end_when_the_trainer_is_killed(index):
    import subprocess
    import sys

    program = (
        "import sys, time\nfrom lapa_core.data.pair_stream import open_pairs\n"
        "stream = open_pairs(sys.argv[1], image_px=32, batch_size=6, gap_s=0.6, workers=2)\n"
        "stream.batch(0)\nprint(*stream.worker_pids(), flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(index[1])], stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdout is not None
        pids = [int(word) for word in trainer.stdout.readline().split()]
        assert len(alive(pids)) == 2
        trainer.kill()
    deadline = time.monotonic() + 20
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pids)
