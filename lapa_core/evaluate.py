# SPDX-License-Identifier: Apache-2.0
"""`lapa eval`: closed-loop rollouts of a policy in the simulator, through `Policy.act`, on scenes fixed by seeds.

Episode i of every evaluation with the same seed is the same scene and instruction, so that policies meet
common scenes; the families take turns, so that each gets the same share.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import gymnasium
import numpy as np
from tqdm import tqdm

from lapa_core.errors import ContractError
from lapa_core.policy import Policy

__all__ = ["EvalConfig", "EvalReport", "FamilyScore", "evaluate", "main", "rollouts"]


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluate a policy in the simulator."""

    checkpoint: Path | None = None
    """Policy to evaluate; none takes the one that ships with the package."""
    episodes: int = 100
    """Rollouts."""
    seed: int = 100_000
    """Seed of the first scene; episode i has seed + i. Collection uses seeds far below."""
    domain: str = "default"
    """Appearance of the scene."""
    temperature: float | None = None
    """Of the sampling of bins, 0 for the likeliest; none takes the checkpoint's own."""
    max_steps: int = 60
    """Control steps before a rollout counts as failed."""
    out: Path | None = None
    """JSON file for the report; it is printed too."""
    device: str = "cpu"
    """Torch device."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ContractError(f"episodes is {self.episodes}; at least 1 is needed")


@dataclass(frozen=True, kw_only=True)
class FamilyScore:
    """Successes of one task family."""

    episodes: int
    """Rollouts."""
    successes: int
    """Rollouts in which the task was done."""
    rate: float
    """Share of successes."""
    standard_error: float
    """Of the rate, binomial."""


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """Result of an evaluation."""

    overall: FamilyScore
    """All families together."""
    families: dict[str, FamilyScore]
    """Each family."""
    refused: int
    """Commands that the controller refused."""
    mean_steps: float
    """Control steps per rollout."""
    latency_ms_p50: float
    """Median time of `Policy.act` [ms]."""
    latency_ms_p99: float
    """99th percentile of it [ms]."""


def score(done: list[bool]) -> FamilyScore:
    """Count successes."""
    rate = sum(done) / len(done)
    error = math.sqrt(rate * (1 - rate) / len(done))
    return FamilyScore(episodes=len(done), successes=sum(done), rate=rate, standard_error=error)


def rollouts(
    policy: Policy, env: gymnasium.Env, families: tuple[str, ...], config: EvalConfig
) -> EvalReport:
    """Run the rollouts in an environment that is already there."""
    done: dict[str, list[bool]] = {family: [] for family in families}
    latency_ms: list[float] = []
    refused = steps = 0
    for episode in tqdm(range(config.episodes), disable=not config.progress, leave=False):
        family = families[episode % len(families)]
        observation, info = env.reset(seed=config.seed + episode, options={"family": family})
        policy.reset()
        terminated = truncated = False
        while not (terminated or truncated):
            start = time.perf_counter()
            decision = policy.act(observation["image"], observation["instruction"])
            latency_ms.append(1e3 * (time.perf_counter() - start))
            observation, _, terminated, truncated, info = env.step(decision.delta.to_array())
            steps += 1
        done[family].append(bool(info["success"]))
        refused += int(info["refused"])
    return EvalReport(
        overall=score([flag for flags in done.values() for flag in flags]),
        families={family: score(flags) for family, flags in done.items() if flags},
        refused=refused,
        mean_steps=steps / config.episodes,
        latency_ms_p50=float(np.percentile(latency_ms, 50)),
        latency_ms_p99=float(np.percentile(latency_ms, 99)),
    )


def evaluate(config: EvalConfig) -> EvalReport:
    """Load the policy, open the simulator and run the rollouts."""
    import torch

    import lapa_core.sim  # noqa: F401  (registers the environment)
    from lapa_core.sim.instructions import FAMILIES

    torch.set_num_threads(1)
    policy = Policy.load(config.checkpoint, config.device, temperature=config.temperature)
    env = gymnasium.make(
        "lapa/Tabletop-v0",
        domain=config.domain,
        image_px=policy.image_px,
        max_steps=config.max_steps,
    )
    try:
        return rollouts(policy, env, tuple(FAMILIES), config)
    finally:
        env.close()


def main(config: EvalConfig) -> None:
    """Evaluate; print one line per family and the report as one JSON object on the last line."""
    report = evaluate(config)
    for family, result in {**report.families, "all": report.overall}.items():
        share, error = 100 * result.rate, 100 * result.standard_error
        print(
            f"{family:16s} {result.successes:4d} / {result.episodes:<4d} {share:5.1f} % +- {error:.1f}"
        )
    facts = {
        "checkpoint": str(config.checkpoint or "shipped"),
        "seed": config.seed,
        "temperature": config.temperature,
        "domain": config.domain,
    }
    text = json.dumps({**facts, **asdict(report)})
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(text + "\n")
    print(text)
