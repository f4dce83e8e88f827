# SPDX-License-Identifier: Apache-2.0
"""`lapa data export-release`: a data set as the JSON lines that the authors' finetuning reads.

Form of a row and of the bins: their `data/finetune_preprocess.py` at commit 46aca51 (facts/lapa.md 2.6). Rotations
become roll, pitch, yaw about fixed axes, the gripper 0 or 1, bins quantiles of this very set.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from lapa_core.actions.bins import MAX_BINS, ActionBins
from lapa_core.data.episode import EpisodeSource, open_source
from lapa_core.errors import DataError

PROMPT = (
    "<s> You are a helpful assistant. USER: What action should the robot take to `{}` ASSISTANT:"
)
FIELDS = "[instruction],[vision],action"
ROWS_NAME, BINS_NAME, PICTURES_NAME = "finetune.jsonl", "bins.csv", "images"
_GRIPPER_EDGES = [-0.5, 0.5, 1.5]
_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class ReleaseExportConfig:
    """Write a data set with actions as the authors' finetuning reads it: JSON lines, pictures, and a table of bins."""

    data: Path
    """Data set with actions and instructions."""
    out: Path
    """New folder: finetune.jsonl, bins.csv (edges, one row per dimension), images/."""
    image_px: int = 256
    """Side of the pictures [px]; the release's tokenizer takes 256."""
    max_bins: int = MAX_BINS
    """Most quantile bins of a dimension; `--action_vocab_size` of their scripts must be at least one more than used."""


def release_actions(actions_N7: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return deltas as the release writes them: translation [m], roll, pitch, yaw [rad], gripper 0 or 1."""
    rows = np.array(actions_N7, dtype=np.float64)
    rows[:, 3:6] = Rotation.from_rotvec(rows[:, 3:6]).as_euler("xyz")
    rows[:, 6] = rows[:, 6] >= 0.5
    return rows


def export_release(config: ReleaseExportConfig) -> tuple[int, ActionBins]:
    """Write the files and return how many rows there are, and the bins.

    Raises:
        DataError: the folder is not empty, or an episode has no actions or no instruction.
    """
    if config.out.exists() and any(config.out.iterdir()):
        raise DataError(f"{config.out} is not empty; give a new folder")
    source = open_source(config.data)
    (config.out / PICTURES_NAME).mkdir(parents=True, exist_ok=True)
    rows = [row for index in _progress(source) for row in _episode(config, source, index)]
    values = np.array([row["raw_actions"] for row in rows])
    bins = _bins(values, config.max_bins)
    indices = bins.encode(values).tolist()
    with (config.out / ROWS_NAME).open("w", encoding="utf-8") as file:
        for row, index in zip(rows, indices, strict=True):
            file.write(json.dumps({**row, "action": index, "fields": FIELDS}) + "\n")
    _write_bins(config.out / BINS_NAME, bins)
    return len(rows), bins


def _progress(source: EpisodeSource) -> Iterator[int]:
    yield from tqdm(range(len(source)), desc="exporting", unit="episode")


def _episode(
    config: ReleaseExportConfig, source: EpisodeSource, index: int
) -> Iterator[dict[str, Any]]:
    episode = source.episode(index, config.image_px)
    if episode.actions is None or not episode.instruction.strip():
        lacks = "no actions" if episode.actions is None else "no instruction"
        raise DataError(f"episode {index} of {config.data} has {lacks}; every row needs both")
    folder = config.out / PICTURES_NAME / f"ep_{index:05d}"
    folder.mkdir()
    actions = release_actions(episode.actions)
    for number, (frame, action) in enumerate(zip(episode.frames, actions, strict=True)):
        path = folder / f"img_{number:05d}.jpg"
        Image.fromarray(frame).save(path, quality=_QUALITY)
        yield {
            "id": f"ep_{index:05d}_{number}",
            "image": path.relative_to(config.out).as_posix(),
            "instruction": PROMPT.format(episode.instruction.strip()),
            "raw_actions": action.tolist(),
        }


def _bins(values_N7: NDArray[np.float64], max_bins: int) -> ActionBins:
    """Fit quantile bins; the gripper's are always closed and open, also where only one of them occurs."""
    fitted = ActionBins.fit(values_N7, max_bins)
    return ActionBins([*fitted.edges[:6], _GRIPPER_EDGES], [*fitted.centres[:6], [0.0, 1.0]])


def _write_bins(path: Path, bins: ActionBins) -> None:
    width = max(len(edges) for edges in bins.edges)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(range(width))
        for edges in bins.edges:
            writer.writerow([*edges.tolist(), *[""] * (width - len(edges))])


def main(config: ReleaseExportConfig) -> None:
    """Export, and say what was written."""
    rows, bins = export_release(config)
    print(
        f"{config.out}: {rows} rows; bins per dimension {bins.counts.tolist()}, "
        f"--action_vocab_size {int(bins.counts.max()) + 1}"
    )
