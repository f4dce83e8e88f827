# SPDX-License-Identifier: Apache-2.0
"""`lapa bench sim`: control steps per second and core, and the scripted expert's success; one JSON object last.

A control step is what `TabletopEnv.step` does: delta, inverse kinematics, 50 Hz joint targets, 0.2 s of physics, one
camera frame through `preprocess`. CPU seconds of this process are counted, so that a shared machine does not blur it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lapa_core.errors import ContractError
from lapa_core.sim.env import TabletopEnv
from lapa_core.sim.expert import ExecutionNoise, NoiseConfig, expert_action
from lapa_core.sim.instructions import FAMILIES


@dataclass(frozen=True, kw_only=True)
class BenchSimConfig:
    """What is measured."""

    steps: int = 1500
    """Control steps that are timed."""
    seeds: int = 0
    """Expert episodes per family for the success table; 0 leaves it out. The figures of the README use 500."""
    domain: str = "default"
    """Appearance, a key of `lapa_core.sim.appearance.DOMAINS`."""
    noise: bool = True
    """Whether the success table is made with the noise that data is collected with."""
    image_px: int = 64
    """Side of the observed image [px]."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.seeds < 0:
            raise ContractError(
                f"steps is {self.steps} and seeds {self.seeds}; at least 1 and 0 are needed"
            )


def measure_speed(env: TabletopEnv, num_steps: int) -> dict[str, float]:
    """Return control steps per CPU second and per wall second; resets and the expert's thinking are not timed."""
    env.reset(seed=0)
    env.step(expert_action(env.world, env.task))  # warm: GL context, caches
    cpu_s = wall_s = 0.0
    seed = 0
    for _ in range(num_steps):
        action = expert_action(env.world, env.task)
        cpu, wall = time.process_time(), time.perf_counter()
        _, _, done, truncated, _ = env.step(action)
        cpu_s += time.process_time() - cpu
        wall_s += time.perf_counter() - wall
        if done or truncated:
            seed += 1
            env.reset(seed=seed)
    return {"steps_per_cpu_second": num_steps / cpu_s, "steps_per_second": num_steps / wall_s}


def measure_expert(
    env: TabletopEnv, family: str, num_seeds: int, noise: NoiseConfig | None
) -> dict[str, float]:
    """Return the expert's success rate, mean and 95th percentile of steps, and refused actions of one family."""
    successes, lengths, refused = [], [], 0
    for seed in range(num_seeds):
        env.reset(seed=seed, options={"family": family})
        disturb = (
            ExecutionNoise(noise, np.random.default_rng([seed, 1])) if noise is not None else None
        )
        done = truncated = False
        info: dict[str, Any] = {}
        while not (done or truncated):
            action = expert_action(env.world, env.task)
            if disturb is not None:
                action = disturb.perturb(action, env.contract.max_translation_m)
            _, _, done, truncated, info = env.step(action)
        successes.append(done)
        lengths.append(info["steps"])
        refused += info["refused"]
    return {
        "success": float(np.mean(successes)), "episodes": num_seeds, "mean_steps": float(np.mean(lengths)),
        "p95_steps": float(np.percentile(lengths, 95)), "refused": refused,
    }  # fmt: skip


def main(config: BenchSimConfig) -> None:
    """Measure, and print one JSON object on the last line."""
    os.environ.setdefault(
        "LP_NUM_THREADS", "0"
    )  # one core is what is measured; llvmpipe would take them all
    env = TabletopEnv(domain=config.domain, image_px=config.image_px)
    try:
        result: dict[str, Any] = {
            "bench": "sim",
            "config": asdict(config),
            "machine": platform.processor() or platform.machine(),
        }
        result.update(
            {name: round(value, 1) for name, value in measure_speed(env, config.steps).items()}
        )
        if config.seeds:
            noise = NoiseConfig() if config.noise else None
            result["expert"] = {
                name: measure_expert(env, name, config.seeds, noise) for name in FAMILIES
            }
    finally:
        env.close()
    sys.stdout.write(json.dumps(result) + "\n")
