# SPDX-License-Identifier: Apache-2.0
"""`lapa laq import-release`: the authors' `laq_openx.pt` as a checkpoint that every other verb takes.

The file is unpickled with weights only and read through a memory map; it is compared with the network tensor by
tensor on torch's meta device, so nothing is allocated for the comparison.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lapa_core.checkpoint import file_sha256, provenance, save_checkpoint
from lapa_core.errors import CheckpointError, ContractError
from lapa_core.laq.checkpoint import KIND, describe
from lapa_core.laq.config import PatchLaqConfig
from lapa_core.laq.release import ReleaseLaq, check_release_state, without_prefix

__all__ = ["ImportReleaseConfig", "import_release", "main"]


@dataclass(frozen=True, kw_only=True)
class ImportReleaseConfig:
    """Turn the authors' released weights into a checkpoint, strictly: every name and shape must be the release's."""

    file: Path
    """`laq_openx.pt`, from latent-action-pretraining/LAPA-7B-openx on the Hugging Face hub."""
    out: Path = Path("outputs/laq_openx")
    """Folder of the checkpoint."""
    gap_s: float = 0.6
    """Time between the two frames of a pair [s]: 0.6 for Open X's robots, 2.4 for people (paper, appendix F)."""
    model: PatchLaqConfig = field(default_factory=lambda: PatchLaqConfig(compat="release"))
    """Sizes of the network; the released file has the defaults."""

    def __post_init__(self) -> None:
        if self.gap_s <= 0:
            raise ContractError(f"gap_s is {self.gap_s}; it must be positive seconds")
        if self.model.compat != "release":
            raise ContractError(
                f"model.compat is {self.model.compat!r}; released weights only fit 'release'"
            )


def read_state(file: Path) -> dict[str, Tensor]:
    """Map the tensors of a file into memory, without the prefix that DistributedDataParallel gives them.

    Raises:
        CheckpointError: missing, no file of torch's, or something else than a state dict in it.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{file} cannot be read as weights of torch ({error}); download laq_openx.pt again"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(
            f"{file} holds no state dict: a mapping of names to tensors is needed"
        )
    return without_prefix(dict(state))


def import_release(config: ImportReleaseConfig) -> Path:
    """Check the file, write the checkpoint and return its folder.

    Raises:
        CheckpointError: the file is not the release's; every tensor that is missing, surplus, of another shape or
            not finite is named.
    """
    state = read_state(config.file)
    with torch.device("meta"):
        model = ReleaseLaq(config.model)
    check_release_state(state, model, str(config.file))
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{config.file} has values that are not finite in {', '.join(broken)}; download it again"
        )
    imported = {"file": config.file.name, "sha256": file_sha256(config.file)}
    facts = {"gap_s": config.gap_s, "imported": imported}
    described = {"kind": KIND, "model": describe(config.model), **facts, "provenance": provenance()}
    return save_checkpoint(config.out, state, described)


def main(config: ImportReleaseConfig) -> None:
    """Import, and say where the model is."""
    print(f"latent action model: {import_release(config)}")
