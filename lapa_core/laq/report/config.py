# SPDX-License-Identifier: Apache-2.0
"""Configuration of `lapa laq report`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lapa_core.errors import ContractError


@dataclass(frozen=True, kw_only=True)
class LaqReportConfig:
    """Measure a latent action model on videos that it was not trained on; write one page that says how good it is."""

    checkpoint: Path
    """Directory of the trained model."""
    data: Path
    """Data set: LeRobot v3, RLDS, a folder of videos, or an index made by `lapa data index`. With true actions the
    report also says whether the codes are actions."""
    out: Path = Path("outputs/laq_report")
    """Folder for report.html and report.json."""
    first_episode: int = 0
    """First episode used: give one behind those that the model was trained on."""
    episodes: int = 0
    """Episodes used; 0 uses all to the end."""
    max_pairs: int = 4000
    """Frame pairs that are measured, drawn from all; bounds the time. 0 measures every pair."""
    permutations: int = 200
    """Random re-pairings of codes and actions behind the null of the mutual information."""
    seed: int = 0
    """Seed of every draw; the same seed gives the same files."""
    device: str = "cpu"
    """Torch device."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        lowest = {"first_episode": 0, "episodes": 0, "max_pairs": 0, "permutations": 20}
        for name, least in lowest.items():
            if (value := getattr(self, name)) < least:
                raise ContractError(f"{name} is {value}; at least {least} is needed")
        if 0 < self.max_pairs < 16:
            raise ContractError(
                f"max_pairs is {self.max_pairs}; at least 16 are needed, or 0 for all"
            )
