# SPDX-License-Identifier: Apache-2.0
"""What the experiment runs, and the recipes of its arms: the one place where they are written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lapa_core.errors import ContractError


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Run the comparison: finished cells are skipped, so a stopped run goes on where it was."""

    out: Path = Path("outputs/experiment")
    """Directory of data, checkpoints, logs, `results.jsonl` and the chart `results.png`."""
    labels: Path | None = None
    """LeRobot data set of labelled episodes, recorded in the default domain; none makes them with the expert."""
    seeds: int = 3
    """Seeds of everything: latent action model, pretraining, labelled subset, finetuning."""
    label_counts: tuple[int, ...] = (50, 100, 450)
    """Numbers of labelled episodes."""
    videos: int = 3000
    """Episodes of video without labels, per domain."""
    probe_episodes: int = 300
    """Further episodes that only the probe sees."""
    rollouts: int = 100
    """Rollouts per policy, on scenes common to all."""
    rollout_seed: int = 400_000
    """Seed of the first scene. Recipes were tuned on scenes from 100000 on: never report those."""
    size: str = "sim"
    """Recipes: `sim`, or `debug` for a run of seconds that only shows that everything works."""
    pretrain_steps: int = 0
    """Optimizer steps of pretraining, on codes and on true actions alike; 0 takes the recipes'."""
    only: str = ""
    """Run only cells whose name contains this, and what they need; empty runs all."""
    workers: int = 2
    """Processes, one thread each."""
    summary: bool = False
    """Print the tables of the finished cells, draw the chart, and run nothing."""

    def __post_init__(self) -> None:
        if self.size not in ("sim", "debug"):
            raise ContractError(f"size is {self.size!r}; allowed are 'sim' and 'debug'")
        counts = (self.seeds, self.videos, self.probe_episodes, self.rollouts, self.workers)
        if min(*counts, *self.label_counts) < 1:
            raise ContractError(
                "seeds, videos, probe_episodes, rollouts, workers and label_counts must be at least 1"
            )
        if self.pretrain_steps < 0:
            raise ContractError(
                f"pretrain_steps is {self.pretrain_steps}; it must be 0 (the recipes' own) or more"
            )
