# SPDX-License-Identifier: Apache-2.0
"""Start frames: one frame of one episode, read without decoding the rest of the data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.clip_index import INDEX_NAME, ClipIndex
from lapa_core.data.episode import open_source
from lapa_core.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Where a rollout begins."""

    picture_SSC: NDArray[np.uint8]
    """The frame, at the model's size."""
    episode: int
    """Episode or clip number."""
    frame: int
    """Frame number within it."""
    instruction: str
    """What the episode does, where it says so."""


class Starts:
    """Start frames of a data set or an index."""

    def __init__(self, data: Path, image_px: int):
        """Open the data.

        Raises:
            DataError: it cannot be read, or has no episodes.
        """
        self._image_px = image_px
        self._index = ClipIndex.load(data) if (data / INDEX_NAME).is_file() else None
        self._source = None if self._index is not None else open_source(data)
        self.episodes = len(self._index if self._index is not None else self._source or ())
        if not self.episodes:
            raise DataError(f"{data} has no episodes; at least one is needed for a start frame")

    def read(self, episode: int, frame: int) -> Start:
        """Read one frame.

        Raises:
            DataError: the episode or the frame does not exist.
        """
        if not 0 <= episode < self.episodes:
            raise DataError(f"episode is {episode}; allowed is 0 to {self.episodes - 1}")
        if self._index is not None:
            clip = self._index.clips[episode]
            self._check(frame, len(clip.times_s), episode)
            picture = self._index.read(clip, [frame], self._image_px)[0]
            return Start(
                picture_SSC=picture, episode=episode, frame=frame, instruction=clip.instruction
            )
        assert self._source is not None
        found = self._source.episode(episode, self._image_px)
        self._check(frame, len(found), episode)
        return Start(
            picture_SSC=found.frames[frame],
            episode=episode,
            frame=frame,
            instruction=found.instruction,
        )

    def _check(self, frame: int, frames: int, episode: int) -> None:
        if frame >= frames:
            raise DataError(
                f"frame is {frame}, but episode {episode} has {frames}; allowed is 0 to {frames - 1}"
            )
