# SPDX-License-Identifier: Apache-2.0
"""`lapa vla import-release`: the authors' LAPA-7B as a checkpoint that every other verb takes.

The weights go from file to file tensor by tensor, so that a machine with far less memory than 13.6 GB can do it. What
is written stays in a folder beside the checkpoint until it is complete; an import that was interrupted goes on there.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lapa_core.checkpoint import CONFIG_FILE, file_sha256, load_config, swap_in, write_config
from lapa_core.checkpoint_files import MAX_FILE_BYTES, WEIGHTS_FILE, write_index
from lapa_core.errors import CheckpointError, ContractError
from lapa_core.paths import alone_in, sync
from lapa_core.vla.base import make_model
from lapa_core.vla.checkpoint import PRETRAINED, WEIGHTS_PREFIX, description
from lapa_core.vla.lwm.config import LwmConfig
from lapa_core.vla.lwm.release import Piece, open_release
from lapa_core.vla.lwm.safetensors_file import write_safetensors
from lapa_core.vla.lwm.tokenizer import SentencePieceText

__all__ = ["ImportReleaseConfig", "import_release", "main"]

log = logging.getLogger(__name__)

PLAN_FILE = "plan.json"
"""What an unfinished import was made from and shall become."""


@dataclass(frozen=True, kw_only=True)
class ImportReleaseConfig:
    """Turn the authors' released weights into a checkpoint, strictly and without JAX.

    Every name and shape must be the release's. Interrupted, it goes on where it was when it is started again.
    """

    params: Path
    """The weights, `params` of latent-action-pretraining/LAPA-7B-openx on the Hugging Face hub."""
    vqgan: Path
    """The frame tokenizer, `vqgan` beside it: a pickle, of which nothing but arrays is taken."""
    tokenizer: Path
    """The text tokenizer, `tokenizer.model` beside it."""
    out: Path = Path("outputs/lapa_7b")
    """Folder of the checkpoint."""
    model: LwmConfig = field(default_factory=LwmConfig)
    """Sizes of the network; the released files have the defaults."""
    latent: tuple[int, int] | None = (4, 8)
    """Codes of a frame pair, and values that a code can take; none for weights without a latent head (LWM-Chat-1M)."""
    laq: Path | None = None
    """Checkpoint of the latent action model that these codes are of (`lapa laq import-release`), for `laq play`."""
    gap_s: float = 0.6
    """Time between the two frames of a pair [s]: 0.6 for robots, 2.4 for people (paper, appendix F)."""
    max_file_gb: float = MAX_FILE_BYTES / 1e9
    """Most bytes of one weight file [GB]; an interrupted import loses the one that was being written."""
    progress: bool = True
    """Show a bar."""

    def __post_init__(self) -> None:
        if not 0.0 < self.gap_s < math.inf:
            raise ContractError(f"gap_s is {self.gap_s}; it must be positive seconds")
        if not self.max_file_gb > 0:
            raise ContractError(f"max_file_gb is {self.max_file_gb}; it must be positive")


def import_release(config: ImportReleaseConfig) -> Path:
    """Check the files, write the checkpoint and return its folder.

    Raises:
        CheckpointError: a file is not the release's; every array that is missing, surplus, of another shape, damaged
            or not finite is named.
        DataError: the tokenizer is none.
    """
    if config.out.exists() and not (config.out / CONFIG_FILE).is_file():
        raise CheckpointError(f"{config.out} exists and is no checkpoint; give another --out")
    described = _describe(config)
    work = config.out.with_name(f".{config.out.name}.importing")
    codes = None if config.latent is None else config.latent[1]
    with open_release(config.params, config.vqgan, config.model, codes) as pieces, alone_in(work):
        files = _plan(pieces, int(config.max_file_gb * 1e9))
        _begin(work, {"model": described, "sources": _sources(config), "files": list(files)})
        total = sum(piece.slot.nbytes for piece in pieces)
        _need_space(work, total)
        with tqdm(total=total, unit="B", unit_scale=True, disable=not config.progress) as bar:
            for name, parts in files.items():
                _write_file(work / name, parts, bar)
        return _finish(work, config, described, files, total)


def _describe(config: ImportReleaseConfig) -> dict[str, Any]:
    """Return the checkpoint's config, which says what was imported."""
    laq = "" if config.laq is None else load_config(config.laq, "laq")["weights_sha256"]
    with torch.device("meta"):
        model = make_model(
            config.model, SentencePieceText.read(config.tokenizer), latent=config.latent
        )
    return description(PRETRAINED, model, laq=laq, gap_s=config.gap_s)


def _sources(config: ImportReleaseConfig) -> dict[str, list[int]]:
    """Return what tells whether the sources of an unfinished import are still the same."""
    stats = {path.name: path.stat() for path in (config.params, config.vqgan, config.tokenizer)}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _plan(pieces: list[Piece], max_file_bytes: int) -> dict[str, list[Piece]]:
    """Divide the tensors among files; one file has the name that every small checkpoint's has."""
    groups: list[list[Piece]] = [[]]
    held = 0
    for piece in pieces:
        if groups[-1] and held + piece.slot.nbytes > max_file_bytes:
            groups.append([])
            held = 0
        groups[-1].append(piece)
        held += piece.slot.nbytes
    if len(groups) == 1:
        return {WEIGHTS_FILE: groups[0]}
    return {
        f"model-{number:05d}-of-{len(groups):05d}.safetensors": group
        for number, group in enumerate(groups, start=1)
    }


def _begin(work: Path, plan: dict[str, Any]) -> None:
    """Keep what an import with the same plan has written, and nothing else."""
    text = json.dumps({**plan, "model": {**plan["model"], "provenance": None}}, indent=1)
    path = work / PLAN_FILE
    if path.is_file() and path.read_text() == text:
        log.info("going on with the import in %s", work)
        return
    for left in work.iterdir():
        left.unlink()
    path.write_text(text)
    sync(path)


def _need_space(work: Path, total_bytes: int) -> None:
    written = sum(path.stat().st_size for path in work.glob("*.safetensors"))
    free = shutil.disk_usage(work).free
    if free < total_bytes - written:
        raise CheckpointError(
            f"{work.parent} has {free / 1e9:.1f} GB free, {(total_bytes - written) / 1e9:.1f} GB are needed; "
            "make room or give another --out"
        )


def _write_file(path: Path, parts: list[Piece], bar: tqdm) -> None:
    if path.is_file():
        bar.update(sum(piece.slot.nbytes for piece in parts))
        return

    def tensors() -> Iterator[Tensor]:
        for piece in parts:
            yield piece.fetch()
            bar.update(piece.slot.nbytes)

    slots = [replace(piece.slot, name=WEIGHTS_PREFIX + piece.slot.name) for piece in parts]
    write_safetensors(path, slots, tensors())


def _finish(
    work: Path,
    config: ImportReleaseConfig,
    described: dict[str, Any],
    files: dict[str, list[Piece]],
    total: int,
) -> Path:
    """Complete the folder and give it its name."""
    names = {
        file: [WEIGHTS_PREFIX + piece.slot.name for piece in parts] for file, parts in files.items()
    }
    if len(files) == 1:
        sha256 = file_sha256(work / WEIGHTS_FILE)
    else:
        sha256 = write_index(work, names, total)
    SentencePieceText.read(config.tokenizer).save(work)
    imported = {
        path.name: file_sha256(path) for path in (config.params, config.vqgan, config.tokenizer)
    }
    write_config(work, {**described, "imported": imported, "weights_sha256": sha256})
    (work / PLAN_FILE).unlink()
    sync(work)
    swap_in(work, config.out)
    return config.out


def main(config: ImportReleaseConfig) -> None:
    """Import, and say where the model is."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(f"pretrained policy: {import_release(config)}")
