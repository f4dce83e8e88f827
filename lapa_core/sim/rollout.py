# SPDX-License-Identifier: Apache-2.0
"""Episodes of the scripted expert, in memory; `lapa sim collect` writes the same ones to disk.

Episode i of a seed is the same whatever the number of workers. Workers are spawned, not forked: a script that calls
`iter_episodes` at module level needs the usual `if __name__ == "__main__"` guard.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.episode import Episode
from lapa_core.errors import ContractError
from lapa_core.sim.env import TabletopEnv
from lapa_core.sim.expert import ExecutionNoise, NoiseConfig, expert_action
from lapa_core.sim.instructions import FAMILIES

_ATTEMPTS = 20
"""Failures of the expert in a row before it is the configuration that is wrong."""
STATE_NAMES = (
    "waist",
    "shoulder",
    "elbow",
    "forearm_roll",
    "wrist_angle",
    "wrist_rotate",
    "gripper",
)
"""Columns of `Episode.states`: measured joints [rad] and gripper, 0 closed to 1 open."""


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """What is recorded."""

    seed: int = 0
    """Episodes of different seeds are independent."""
    domain: str = "default"
    """Appearance, a key of `lapa_core.sim.appearance.DOMAINS`."""
    families: tuple[str, ...] = FAMILIES
    """Task families, drawn uniformly."""
    image_px: int = 64
    """Side of the frames [px]: the contract's camera frame through `lapa_core.image.preprocess`."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Perturbation of what is executed; labels stay clean."""
    max_steps: int = 60
    """Control steps after which an attempt counts as failed and is drawn again."""


def record_episode(env: TabletopEnv, index: int, config: RolloutConfig) -> Episode:
    """Return episode `index`: the first attempt of its seed that succeeds.

    Row t holds the frame, the measured state and the expert's clean action there; the frame after the last action
    is left out.

    Raises:
        ContractError: the expert failed too often in a row (too much noise, too few steps).
    """
    for attempt in range(_ATTEMPTS):
        streams = np.random.SeedSequence([config.seed, index, attempt]).spawn(2)
        noise = ExecutionNoise(config.noise, np.random.default_rng(streams[1]))
        observation, _ = env.reset(seed=int(streams[0].generate_state(1)[0]))
        frames: list[NDArray[np.uint8]] = []
        states: list[NDArray[np.float64]] = []
        actions: list[NDArray[np.float64]] = []
        done = truncated = False
        while not (done or truncated):
            action = expert_action(env.world, env.task)
            frames.append(observation["image"])
            states.append(np.append(env.world.joints_rad, env.world.gripper))
            actions.append(action)
            executed = noise.perturb(action, env.contract.max_translation_m)
            observation, _, done, truncated, _ = env.step(executed)
        if done:
            return Episode(
                frames=np.stack(frames), instruction=env.task.instruction, fps=env.contract.control_rate_hz,
                actions=np.stack(actions).astype(np.float32), states=np.stack(states).astype(np.float32),
                source=f"sim {config.domain} seed {config.seed} episode {index} attempt {attempt}",
            )  # fmt: skip
    raise ContractError(
        f"the expert failed {_ATTEMPTS} times in a row with {config}; lower the noise or raise max_steps"
    )


def collect_episodes(
    num_episodes: int, config: RolloutConfig | None = None, *, workers: int = 2, start: int = 0
) -> list[Episode]:
    """Return episodes `start` to `start + num_episodes - 1`, in order; see `iter_episodes`."""
    indices = range(start, start + num_episodes)
    return list(iter_episodes(indices, config or RolloutConfig(), workers=workers))


def iter_episodes(indices: range, config: RolloutConfig, *, workers: int = 2) -> Iterator[Episode]:
    """Yield episodes in the order of `indices`, made by `workers` processes; 1 runs them in this one.

    Raises:
        ContractError: workers below 1, or the configuration cannot be recorded.
    """
    if workers < 1:
        raise ContractError(f"workers is {workers}; at least 1 is needed")
    if workers == 1:
        env = _make_env(config)
        try:
            for index in indices:
                yield record_episode(env, index, config)
        finally:
            env.close()
        return
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker, (config,)) as pool:
        yield from pool.imap(_record_in_worker, indices, chunksize=4)


def _make_env(config: RolloutConfig) -> TabletopEnv:
    return TabletopEnv(
        domain=config.domain,
        families=config.families,
        image_px=config.image_px,
        max_steps=config.max_steps,
    )


class _Worker:
    """What a worker process keeps between episodes."""

    env: TabletopEnv
    config: RolloutConfig


def _start_worker(config: RolloutConfig) -> None:
    os.environ["LP_NUM_THREADS"] = "0"  # llvmpipe's own threads would fight the other workers
    _Worker.config = config
    _Worker.env = _make_env(config)


def _record_in_worker(index: int) -> Episode:
    return record_episode(_Worker.env, index, _Worker.config)
