# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes: the same in memory and on disk, whoever made them, and resumable."""

import numpy as np
import pytest

from lapa_core.data.episode import open_source
from lapa_core.errors import ContractError, DataError
from lapa_core.sim.collect import CollectConfig, collect
from lapa_core.sim.rollout import STATE_NAMES, RolloutConfig, collect_episodes


def test_episodes_have_clean_labels_and_their_first_frame_is_the_start():
    episode = collect_episodes(1, RolloutConfig(seed=3), workers=1)[0]
    assert episode.frames.shape == (len(episode), 64, 64, 3)
    assert episode.actions.shape == (len(episode), 7)
    assert episode.states.shape == (len(episode), len(STATE_NAMES))
    assert np.linalg.norm(episode.actions[:, :2], axis=1).max() <= 0.04 + 1e-6
    assert not episode.actions[:, 2:].any()
    assert episode.fps == 5.0


@pytest.mark.slow
def test_episodes_do_not_depend_on_the_number_of_workers():
    config = RolloutConfig(seed=1, image_px=32)
    alone, together = collect_episodes(4, config, workers=1), collect_episodes(4, config, workers=2)
    for one, other in zip(alone, together, strict=True):
        assert one.instruction == other.instruction
        assert np.array_equal(one.frames, other.frames)
        assert np.array_equal(one.actions, other.actions)
    later = collect_episodes(1, config, workers=1, start=3)[0]
    assert np.array_equal(later.frames, alone[3].frames)


def test_an_impossible_configuration_is_an_error_and_no_endless_loop():
    with pytest.raises(ContractError, match="max_steps"):
        collect_episodes(1, RolloutConfig(families=("push_to_block",), max_steps=1), workers=1)
    with pytest.raises(ContractError, match="workers"):
        collect_episodes(1, workers=0)


def test_a_data_set_is_resumed_with_the_same_settings_only(tmp_path):
    out = tmp_path / "set"
    assert (
        collect(CollectConfig(out=out, episodes=1, with_actions=True, image_px=64, workers=1)) == 1
    )
    assert (
        collect(CollectConfig(out=out, episodes=2, with_actions=True, image_px=64, workers=1)) == 1
    )
    assert (
        collect(CollectConfig(out=out, episodes=2, with_actions=True, image_px=64, workers=1)) == 0
    )
    with pytest.raises(DataError, match="seed"):
        collect(
            CollectConfig(out=out, episodes=3, seed=1, with_actions=True, image_px=64, workers=1)
        )
    source = open_source(out)
    recorded = [source.episode(index) for index in range(len(source))]
    fresh = collect_episodes(2, RolloutConfig(), workers=1)
    for one, other in zip(recorded, fresh, strict=True):
        assert one.instruction == other.instruction
        assert np.array_equal(one.actions, other.actions)
        assert np.abs(one.frames.astype(int) - other.frames).mean() < 4, "video compression"


def test_videos_carry_no_actions_unless_asked(tmp_path):
    collect(CollectConfig(out=tmp_path / "videos", episodes=1, image_px=64, workers=1))
    episode = open_source(tmp_path / "videos").episode(0)
    assert episode.actions is None
    assert episode.states is None
    assert episode.instruction
