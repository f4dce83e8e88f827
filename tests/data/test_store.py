# SPDX-License-Identifier: Apache-2.0
"""Frames for training: pairs by time, subsets, and the cache."""

import numpy as np
import pytest

from lapa_core.data.episode import Episode
from lapa_core.data.lerobot import LeRobotSource
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError


def episode(count, fps=5.0, times_s=(), actions=None, size_px=8):
    return Episode(
        frames=np.zeros((count, size_px, size_px, 3), np.uint8),
        instruction="x",
        fps=fps,
        timestamps_s=np.asarray(times_s, dtype=float),
        actions=actions,
    )


def test_pairs_stay_inside_episodes_and_are_never_clamped():
    store = FrameStore.from_episodes([episode(5), episode(2), episode(4)])
    pairs = store.valid_pairs(0.6)
    np.testing.assert_array_equal(pairs, [[0, 3], [1, 4], [7, 10]])
    ids = store.episode_ids
    np.testing.assert_array_equal(ids[pairs[:, 0]], ids[pairs[:, 1]])


def test_pairs_follow_the_clock_when_the_rate_varies():
    times_s = np.array([0.0, 0.1, 0.2, 1.0, 1.1, 2.0])
    store = FrameStore.from_episodes([episode(6, fps=2.5, times_s=times_s)])
    pairs = store.valid_pairs(0.9)
    gaps_s = times_s[pairs[:, 1]] - times_s[pairs[:, 0]]
    np.testing.assert_array_equal(pairs, [[0, 3], [1, 3], [2, 4], [3, 5], [4, 5]])
    assert np.abs(gaps_s - 0.9).max() <= 0.2 + 1e-9


@pytest.mark.parametrize("gap_s", [0.0, -1.0, float("nan"), 0.01, 5.0])
def test_impossible_gap_is_refused(gap_s):
    with pytest.raises(DataError, match="gap"):
        FrameStore.from_episodes([episode(5), episode(6)]).valid_pairs(gap_s)


def test_subset_keeps_rows_together(make_set, tmp_path, stamps):
    store = FrameStore.load(make_set(), 32, cache_dir=tmp_path / "cache")
    chosen = store.subset([2, 0])
    assert chosen.instructions == ["task 0", "task 0"]
    np.testing.assert_array_equal(chosen.episode_offsets, [0, 4, 10])
    assert stamps.read_all(chosen.frames) == [32, 33, 34, 35, 0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(chosen.actions[:4, 0], 2 + np.arange(4) * 7 / 1000, rtol=1e-6)
    assert store.subset([1, 2]).frames.base is not None  # neighbours are a view


@pytest.mark.parametrize("ids", [[], [3], [-1]])
def test_missing_episode_is_refused(ids):
    with pytest.raises(DataError, match="episode ids"):
        FrameStore.from_episodes([episode(2)] * 3).subset(ids)


def test_mixture_with_and_without_actions_is_refused():
    with pytest.raises(DataError, match="no actions but others do"):
        FrameStore.from_episodes([episode(2, actions=np.zeros((2, 7), np.float32)), episode(2)])


def test_second_load_decodes_nothing(make_set, tmp_path, monkeypatch):
    path, cache = make_set(), tmp_path / "cache"
    first = FrameStore.load(path, 32, cache_dir=cache)

    def refuse(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(LeRobotSource, "episode", refuse)
    second = FrameStore.load(path, 32, cache_dir=cache)
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.actions, second.actions)
    assert second.instructions == first.instructions
    assert not second.frames.flags.writeable


def test_cache_notices_a_change(make_set, tmp_path):
    path, cache = make_set(lengths=(3,)), tmp_path / "cache"
    assert FrameStore.load(path, 32, cache_dir=cache).num_episodes == 1
    make_set(lengths=(3,), first_episode=1)
    assert FrameStore.load(path, 32, cache_dir=cache).num_episodes == 2
    assert FrameStore.load(path, 16, cache_dir=cache).frames.shape == (6, 16, 16, 3)


def test_damaged_cache_is_refused(make_set, tmp_path):
    path, cache = make_set(lengths=(3,)), tmp_path / "cache"
    FrameStore.load(path, 32, cache_dir=cache)
    frames = next(cache.glob("*/frames.u8"))
    frames.write_bytes(frames.read_bytes()[:-1])
    with pytest.raises(DataError, match="delete"):
        FrameStore.load(path, 32, cache_dir=cache)


def test_failed_build_leaves_nothing(make_set, tmp_path):
    path, cache = make_set(), tmp_path / "cache"
    next(path.glob("videos/*/*/file-002.mp4")).unlink()
    with pytest.raises(DataError, match="missing"):
        FrameStore.load(path, 32, cache_dir=cache)
    assert list(cache.iterdir()) == []
