# SPDX-License-Identifier: Apache-2.0
"""Configurations of what is done with a trained latent action model. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lapa_core.errors import ContractError


@dataclass(frozen=True, kw_only=True)
class LaqLabelConfig:
    """Label every frame pair of a data set with a trained latent action model.

    Started again, it goes on where it was; the files do not depend on how often, on the workers or on Ray.
    """

    data: Path
    """Data set, index of `lapa data index`, or mixture (*.yaml): of that, each corpus gets a folder of its own,
    with every clip, also those that `min_motion` leaves out: `lapa vla pretrain` takes an index whole."""
    checkpoint: Path
    """Directory of the trained model."""
    out: Path | None = None
    """Folder of the labels; default `<data>.latents/<first 12 digits of the checkpoint hash>`, beside the data set."""
    gap_s: float | None = None
    """Time between the frames of a pair [s]; none takes that of the model's training. A mixture has its own."""
    max_episodes: int = 0
    """Use only the first episodes or clips; 0 uses all."""
    workers: int = 1
    """Processes on this machine, one thread each."""
    ray: str = ""
    """Address of a Ray cluster that does the work instead: `auto`, `host:port`, or `local`; empty uses none. Its
    machines must see the data and the checkpoint under the same paths; labels are written by this process."""
    device: str = "cpu"
    """Torch device. With Ray, `cuda` gives each shard a GPU of its own."""
    batch_size: int = 256
    """Pairs that the model takes at once."""
    shard_rows: int = 4096
    """Most pairs of a file; an interrupted run loses at most the files it was at."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        if min(self.workers, self.batch_size, self.shard_rows) < 1 or self.max_episodes < 0:
            raise ContractError(
                f"workers {self.workers}, batch_size {self.batch_size}, shard_rows {self.shard_rows}, max_episodes "
                f"{self.max_episodes}: the first three must be at least 1, the last at least 0"
            )
        if self.gap_s is not None and not 0 < self.gap_s < float("inf"):
            raise ContractError(f"gap_s is {self.gap_s}; a positive time in seconds is needed")


@dataclass(frozen=True, kw_only=True)
class LaqProbeConfig:
    """Measure how much of the true motion a model's codes hold, on held-out episodes."""

    data: Path
    """Data set with true actions; the latent action model never saw them."""
    checkpoint: Path
    """Directory of the trained model."""
    out: Path | None = None
    """JSON file for the figures; they are printed too."""
    first_episode: int = 0
    """First episode used: give one behind those the model was trained on."""
    episodes: int = 0
    """Episodes used; 0 uses all to the end. Half fit the probe, half score it."""
    device: str = "cpu"
    """Torch device."""
