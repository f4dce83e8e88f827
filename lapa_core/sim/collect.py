# SPDX-License-Identifier: Apache-2.0
"""`lapa sim collect`: expert episodes as a LeRobot v3 data set, videos only unless actions are asked for.

Resumable: started again with the same settings it goes on after the last episode on disk; with others it refuses.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.checkpoint import provenance
from lapa_core.data.lerobot import LeRobotWriter
from lapa_core.data.lerobot_format import INFO_PATH, OWN_KEY, make_features, read_info
from lapa_core.errors import ContractError
from lapa_core.robot.contract import load_contract
from lapa_core.sim.appearance import get_appearance
from lapa_core.sim.expert import NoiseConfig
from lapa_core.sim.instructions import FAMILIES
from lapa_core.sim.rollout import STATE_NAMES, RolloutConfig, iter_episodes


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What is recorded, and where to."""

    out: Path
    """Folder of the data set; an existing one is resumed."""
    episodes: int = 3000
    """Episodes that the data set holds at the end."""
    seed: int = 0
    """Seed; episode i of a seed is always the same."""
    domain: str = "default"
    """Appearance, a key of `lapa_core.sim.appearance.DOMAINS`."""
    with_actions: bool = False
    """Whether the expert's actions and the joint states are written too; without, it is video and instruction."""
    families: tuple[str, ...] = FAMILIES
    """Task families, drawn uniformly."""
    image_px: int = 128
    """Side of the videos [px]."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Perturbation of what is executed; labels stay clean."""
    workers: int = 2
    """Processes that simulate."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.workers < 1:
            raise ContractError(
                f"episodes is {self.episodes} and workers {self.workers}; both must be at least 1"
            )


def collect(config: CollectConfig) -> int:
    """Record until the data set holds `config.episodes` episodes; return how many were recorded now.

    Raises:
        DataError: `config.out` holds another data set, or one recorded with other settings.
    """
    contract = load_contract(get_appearance(config.domain).contract)
    writer = LeRobotWriter(
        config.out,
        fps=round(contract.control_rate_hz),
        features=make_features(
            {"front": (config.image_px, config.image_px)},
            action_names=ACTION_NAMES if config.with_actions else None,
            state_names=STATE_NAMES if config.with_actions else None,
        ),
        robot_type=contract.robot_model,
        metadata={
            "contract_hash": contract.hash,
            "sim": _settings(config),
            "provenance": _first_provenance(config.out),
        },
    )
    rollout = RolloutConfig(
        seed=config.seed,
        domain=config.domain,
        families=config.families,
        image_px=config.image_px,
        noise=config.noise,
    )
    missing = range(writer.num_episodes, config.episodes)
    episodes = iter_episodes(missing, rollout, workers=config.workers)
    for episode in tqdm(
        episodes, total=len(missing), unit="episode", disable=not sys.stderr.isatty()
    ):
        writer.add_episode(
            {"front": episode.frames},
            instruction=episode.instruction,
            actions=episode.actions if config.with_actions else None,
            states=episode.states if config.with_actions else None,
            source=episode.source,
        )
    return len(missing)


def _settings(config: CollectConfig) -> dict[str, Any]:
    """Return what makes two recordings the same, as JSON has it."""
    return {
        "seed": config.seed,
        "domain": config.domain,
        "families": list(config.families),
        "noise": asdict(config.noise),
    }


def _first_provenance(out: Path) -> dict[str, Any]:
    """Return the provenance that a resumed data set was started with, else this run's."""
    if not (out / INFO_PATH).is_file():
        return provenance()
    recorded: dict[str, Any] = read_info(out).get(OWN_KEY, {}).get("provenance", {})
    return recorded


def main(config: CollectConfig) -> None:
    """Record, and say what is there."""
    recorded = collect(config)
    sys.stdout.write(f"{config.out}: {recorded} episodes recorded, {config.episodes} in all\n")
