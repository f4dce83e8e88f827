# SPDX-License-Identifier: Apache-2.0
"""An index of clips: what `lapa data index` wrote, and the reading of pairs and frames through it.

    index = ClipIndex.load("outputs/index")
    for clip in index.clips:
        pairs_P2 = index.pairs(clip, gap_s=0.6)
        frames_NSSC = index.read(clip, pairs_P2[:, 0], image_px=256)

Imports numpy and pyarrow, and av for videos.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.clip import Clip
from lapa_core.data.clip_frames import make_request, read_request
from lapa_core.data.clip_tables import read_tables
from lapa_core.data.scaled_video import SquareScaler
from lapa_core.data.store import episode_pairs
from lapa_core.errors import DataError

INDEX_NAME = "index.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipIndex:
    """Readable clips of one data folder, whatever they are stored as."""

    root: Path
    """Data folder; paths of clips are relative to it."""
    clips: tuple[Clip, ...]
    """In the order of their ids."""
    camera: str | None = None
    """Camera that was chosen, for data sets that have several."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The whole of `index.json`: settings, counts, unreadable files with reasons, hash."""

    @classmethod
    def load(cls, path: str | Path, *, data: str | Path | None = None) -> ClipIndex:
        """Open an index.

        Args:
            path: folder that `lapa data index` wrote, or the `index.json` in it.
            data: where the data folder is now; None is where it was when it was scanned.

        Raises:
            DataError: no index, a damaged or empty one, or a data folder that has moved.
        """
        folder = Path(path)
        folder = folder.parent if folder.name == INDEX_NAME else folder
        facts = read_facts(folder)
        root = Path(data) if data is not None else Path(facts["data"])
        if not root.is_dir():
            raise DataError(
                f"{folder}: its data folder {root} is missing; say where it is with `data`"
            )
        clips = tuple(read_tables(folder))
        if len(clips) != facts["clips"]:
            raise DataError(f"{folder} holds {len(clips)} of {facts['clips']} clips; index again")
        if not clips:
            raise DataError(f"{folder} holds no clip; its {INDEX_NAME} says why, file by file")
        return cls(root=root, clips=clips, camera=facts["camera"], facts=facts)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def identity(self) -> str:
        """Hash of everything that decides which frames a pair is: ids, content hashes and times."""
        return str(self.facts["hash"])

    def pairs(self, clip: Clip, gap_s: float) -> NDArray[np.int64]:
        """Return every (frame, later frame) of a clip that lies `gap_s` apart, (P, 2) frame numbers.

        The later frame is the one with the nearest time, at most half a mean frame period off. Where it would lie past
        the end there is no pair; a clip that is too short has none.

        Raises:
            DataError: the gap is not a positive number of seconds.
        """
        if not (np.isfinite(gap_s) and gap_s > 0):
            raise DataError(f"gap_s is {gap_s}; a positive time in seconds is needed")
        return episode_pairs(clip.times_s, gap_s)

    def read(
        self, clip: Clip, frame_numbers: NDArray[np.int64] | list[int], image_px: int
    ) -> NDArray[np.uint8]:
        """Read frames of a clip, in any order and with repeats, as (n, S, S, 3) RGB squares.

        Neighbours cost little: a video is decoded once from the key frame before the first.

        Raises:
            DataError: a frame that the clip does not have, or a file that is damaged or was changed.
        """
        numbers = np.asarray(frame_numbers, dtype=np.int64)
        if not numbers.size:
            return np.zeros((0, image_px, image_px, 3), np.uint8)
        unique, place = np.unique(numbers, return_inverse=True)
        frames = np.empty((len(unique), image_px, image_px, 3), np.uint8)
        request = make_request(self.root, clip, unique)
        read_request(request, SquareScaler(image_px), frames)
        return (
            frames
            if len(unique) == len(numbers) and (place[1:] > place[:-1]).all()
            else frames[place]
        )


def read_facts(folder: Path) -> dict[str, Any]:
    """Read `index.json`, or raise DataError when it is missing or malformed."""
    path = folder / INDEX_NAME
    if not path.is_file():
        raise DataError(f"{folder} holds no {INDEX_NAME}; make it with `lapa data index`")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); run `lapa data index` again") from error
    missing = {"data", "camera", "clips", "hash", "unreadable"} - set(facts)
    if missing:
        raise DataError(f"{path} has no {sorted(missing)}; run `lapa data index` again")
    return dict(facts)
