# SPDX-License-Identifier: Apache-2.0
"""Say what a data set holds, for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lapa_core.data import lerobot_format as fmt
from lapa_core.data.episode import open_source
from lapa_core.data.lerobot import LeRobotSource
from lapa_core.data.rlds import RldsSource


def describe(path: str | Path) -> Iterator[str]:
    """Yield lines that say what a data set holds."""
    source = open_source(path)
    yield f"{source.path}: {type(source).__name__.removesuffix('Source')}, {len(source)} episodes"
    if isinstance(source, RldsSource):
        yield f"  {source.fps:g} Hz, cameras {', '.join(source.cameras)}"
    if isinstance(source, LeRobotSource):
        lengths = np.array([source.length(i) for i in range(len(source))] or [0])
        yield (
            f"  {lengths.sum()} frames at {source.fps:g} Hz ({lengths.sum() / source.fps / 60:.1f} min), "
            f"{lengths.min()} to {lengths.max()} an episode"
        )
        for name, feature in source.features.items():
            yield f"  {name}: {feature['dtype']} {tuple(feature['shape'])}"
        yield from _tasks(source)
        for key, value in source.metadata.items():
            yield f"  {fmt.OWN_KEY}/{key}: {value}"


def _tasks(source: LeRobotSource, shown: int = 10) -> Iterator[str]:
    texts, counts = np.unique(
        [source.instruction(i) for i in range(len(source))], return_counts=True
    )
    for place in np.argsort(-counts)[:shown]:
        yield f"  {counts[place]} x {str(texts[place])!r}"
    if len(texts) > shown:
        yield f"  and {len(texts) - shown} more instructions"
