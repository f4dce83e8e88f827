# SPDX-License-Identifier: Apache-2.0
"""The simulated videos of the experiment, made once and kept: frames and sentences, and apart from them the truth.

The stages that learn from videos get `VideoSet.videos`, which holds no actions. The truth is for the reference
rows (behaviour-cloning ceiling, ActionVLA) and for the probe.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.robot.contract import load_contract
from lapa_core.robot.kinematics import forward_kinematics


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoSet:
    """Episodes of one domain with the truth behind them."""

    store: FrameStore
    """Frames, instructions and the expert's actions."""
    position_N2: NDArray[np.float64]
    """Measured x, y of the end effector at every frame [m]."""

    def subset(self, episodes: range) -> VideoSet:
        """Return some neighbouring episodes."""
        offsets = self.store.episode_offsets
        rows = slice(offsets[episodes.start], offsets[episodes.stop])
        return VideoSet(store=self.store.subset(episodes), position_N2=self.position_N2[rows])


def make_video_set(
    directory: Path, *, episodes: int, seed: int, domain: str, image_px: int, workers: int
) -> Path:
    """Collect episodes of the scripted expert into `directory`, unless they are there already.

    Raises:
        DataError: fewer episodes are there.
    """
    from lapa_core.sim.appearance import get_appearance
    from lapa_core.sim.rollout import RolloutConfig, iter_episodes

    if directory.is_dir():
        held = load_video_set(directory).store.num_episodes
        if held < episodes:
            raise DataError(
                f"{directory} holds {held} episodes and {episodes} are needed; remove it, and it is made anew, or "
                "give another --out"
            )
        return directory
    arm = load_contract(get_appearance(domain).contract).arm
    config = RolloutConfig(seed=seed, domain=domain, image_px=image_px)
    recorded = list(iter_episodes(range(episodes), config, workers=workers))
    fresh = directory.with_name(f".{directory.name}.fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    store = FrameStore.from_episodes(recorded)
    states = [episode.states for episode in recorded if episode.states is not None]
    joints_N6 = np.concatenate(states)[:, :6].astype(np.float64)
    position_N2 = np.stack([forward_kinematics(arm, q)[:2, 3] for q in joints_N6])
    np.save(fresh / "frames.npy", store.frames)
    np.savez(
        fresh / "rest.npz",
        position_N2=position_N2,
        episode_offsets=store.episode_offsets,
        timestamps_s=store.timestamps_s,
        actions=np.asarray(store.actions),
    )
    (fresh / "episodes.json").write_text(
        json.dumps({"instructions": store.instructions, "fps": store.fps})
    )
    fresh.rename(directory)
    return directory


def load_video_set(directory: Path) -> VideoSet:
    """Open a video set; its frames are a read-only memory map shared by all workers."""
    try:
        rest = np.load(directory / "rest.npz")
        facts = json.loads((directory / "episodes.json").read_text())
        frames = np.load(directory / "frames.npy", mmap_mode="r")
    except OSError as error:
        raise DataError(
            f"{directory} is no video set of the experiment ({error}); run `lapa experiment`"
        ) from error
    store = FrameStore(
        frames=frames,
        episode_offsets=rest["episode_offsets"],
        timestamps_s=rest["timestamps_s"],
        actions=rest["actions"],
        **facts,
    )
    return VideoSet(store=store, position_N2=rest["position_N2"])
