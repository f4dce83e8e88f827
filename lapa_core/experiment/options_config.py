# SPDX-License-Identifier: Apache-2.0
"""What `lapa laq options` runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lapa_core.errors import ContractError
from lapa_core.experiment.options_recipes import OPTIONS
from lapa_core.sim.appearance import get_appearance


@dataclass(frozen=True, kw_only=True)
class LaqOptionsConfig:
    """Train every option for the same time and probe it; a stopped run goes on where it was."""

    out: Path = Path("outputs/laq_options")
    """Directory of videos, checkpoints, logs and `results.jsonl`."""
    options: tuple[str, ...] = ()
    """Rows of the table, keys of `OPTIONS`; none runs all, the most informative first."""
    domains: tuple[str, ...] = ("hard", "default")
    """Looks of the simulated videos, keys of `lapa_core.sim.appearance.DOMAINS`."""
    seconds: float = 90.0
    """CPU time of the training steps of every option, on one thread [s]; its steps are those that fit, at a price
    that is measured in turns with the default's, so that other work on the machine favours nobody."""
    steps: int = 0
    """Optimizer steps of every option instead; 0 goes by the time."""
    seeds: int = 3
    """Seeds of weights, order and noise."""
    first_seed: int = 0
    """The first of them. Recipes were tuned on seeds from 100 on."""
    videos: int = 1500
    """Episodes of video without labels, per domain. Recipes were tuned with 1200, so on other probe episodes."""
    probe_episodes: int = 300
    """Further episodes that only the probe sees."""
    dinov2: str = ""
    """DINOv2 for the rows that predict its features: a local folder or an id; without one they are not measured."""
    only: str = ""
    """Run only cells whose name contains this, and what they need; empty runs all."""
    workers: int = 1
    """Processes, one thread each."""
    summary: bool = False
    """Print the table of the finished cells and run nothing."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.options) - set(OPTIONS)):
            raise ContractError(f"options {unknown} are unknown; allowed are {sorted(OPTIONS)}")
        for domain in self.domains:
            get_appearance(domain)
        if min(self.seeds, self.videos, self.probe_episodes, self.workers) < 1:
            raise ContractError("seeds, videos, probe_episodes and workers must be at least 1")
        if self.seconds <= 0 or self.steps < 0:
            raise ContractError(
                f"seconds is {self.seconds} and steps {self.steps}; seconds must be above 0, steps at least 0"
            )
