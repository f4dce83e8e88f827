# SPDX-License-Identifier: Apache-2.0
"""One clip of an index: where its frames lie, and the time of each. Imports numpy."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

KINDS = ("video", "frames", "lerobot", "rlds", "mcap")
"""What a clip can be: a video file, a folder of pictures, an episode of a data set, or a recording."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Clip:
    """One video, folder of frames or episode, seen by one camera."""

    number: int
    """Place in the index, from 0."""
    id: str
    """Name that is unique in the index: the path, and `#` with the episode where a file holds several."""
    kind: str
    """One of `KINDS`."""
    path: str
    """File, or folder of frames, relative to the data folder."""
    address: str
    """Where in the file: an episode number, with `:` and the camera where pictures lie in tables (lerobot); byte
    offset, length and feature with `:` between (rlds); a topic (mcap); else empty."""
    stored: bool
    """Whether the frames are stored in a video file, so that `keyframes` holds and neighbours are cheap to read."""
    size_bytes: int
    """Size of the file, or of all pictures of the folder [bytes]."""
    hash: str
    """BLAKE2b of the content; equal for copies (`lapa_core.data.content_hash` says what is read)."""
    fps: float
    """Mean frames per second."""
    instruction: str
    """What happens, in words; empty when nobody wrote it down."""
    motion: float | None
    """Mean absolute difference of frames about a second apart on 32 px thumbnails [grey levels]; None: not measured.
    64 frames are looked at at most, so that in clips of over a minute they lie further apart."""
    time_base: Fraction
    """Length of one tick of `pts` [s]."""
    pts: NDArray[np.int64]
    """(T,) presentation time of each frame, increasing [time_base]."""
    keyframes: NDArray[np.int32]
    """(K,) frame numbers from which decoding can start."""

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(T,) time of each frame from the first one [s]."""
        return (self.pts - self.pts[0]) * float(self.time_base)

    @property
    def duration_s(self) -> float:
        """Time from the first frame to the last [s]."""
        return float((self.pts[-1] - self.pts[0]) * self.time_base)
