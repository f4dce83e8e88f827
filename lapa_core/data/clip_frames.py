# SPDX-License-Identifier: Apache-2.0
"""Read chosen frames of a clip of any kind, as centre squares of one size: the one way in for clips.

Imports numpy and, for the kind at hand, its reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.clip import Clip
from lapa_core.data.scaled_video import SquareScaler, read_squares
from lapa_core.data.wanted_frames import seek_points
from lapa_core.errors import DataError
from lapa_core.image import preprocess


@dataclass(frozen=True, kw_only=True)
class FrameRequest:
    """Frames of one clip, described so briefly that it is sent to a worker process."""

    kind: str
    """Kind of the clip."""
    stored: bool
    """Whether the frames are in a video file."""
    path: str
    """File or folder."""
    address: str
    """Where in the file, as in `Clip.address`."""
    numbers: tuple[int, ...]
    """Wanted frame numbers, increasing."""
    pts: tuple[int, ...]
    """Presentation time of each wanted frame [ticks]."""
    seeks: tuple[int, ...]
    """Positions before which to seek, for video files."""
    num_frames: int
    """Frames of the whole clip, to notice one that changed."""


def make_request(root: Path, clip: Clip, numbers: NDArray[np.int64]) -> FrameRequest:
    """Describe the reading of increasing frame numbers of a clip.

    Raises:
        DataError: a frame number that the clip does not have, or numbers that do not increase.
    """
    numbers = np.asarray(numbers, dtype=np.int64)
    if not len(numbers) or numbers[0] < 0 or numbers[-1] >= len(clip):
        raise DataError(f"{clip.id}: frames {numbers[:4]}; it has 0 to {len(clip) - 1}")
    if (np.diff(numbers) <= 0).any():
        raise DataError(f"{clip.id}: frame numbers {numbers[:8]} do not increase")
    return FrameRequest(
        kind=clip.kind,
        stored=clip.stored,
        path=str(root / clip.path),
        address=clip.address,
        numbers=tuple(numbers.tolist()),
        pts=tuple(clip.pts[numbers].tolist()),
        seeks=tuple(seek_points(numbers, clip.keyframes)) if clip.stored else (),
        num_frames=len(clip),
    )


def read_request(request: FrameRequest, scaler: SquareScaler, out_NSSC: NDArray[np.uint8]) -> None:
    """Fill (N, S, S, 3) with the wanted frames.

    Raises:
        DataError: a file is missing or damaged, or is no longer what the index says.
    """
    path = Path(request.path)
    if request.stored:
        pts = np.asarray(request.pts, dtype=np.int64)
        read_squares(path, pts, list(request.seeks), scaler, out_NSSC)
        return
    readers = {
        "frames": _read_pictures, "rlds": _read_rlds, "mcap": _read_mcap, "lerobot": _read_lerobot,
    }  # fmt: skip
    readers[request.kind](path, request, scaler.image_px, out_NSSC)


def _read_pictures(
    path: Path, request: FrameRequest, image_px: int, out_NSSC: NDArray[np.uint8]
) -> None:
    from lapa_core.data.frame_folders import picture_names, read_picture

    names = picture_names(path)
    if len(names) != request.num_frames:
        raise DataError(
            f"{path} holds {len(names)} pictures, the index says {request.num_frames}; run `lapa data index` again"
        )
    for place, number in enumerate(request.numbers):
        out_NSSC[place] = preprocess(read_picture(path / names[number]), image_px)


def _read_rlds(
    path: Path, request: FrameRequest, image_px: int, out_NSSC: NDArray[np.uint8]
) -> None:
    from lapa_core.data.rlds_pictures import read_record_pictures
    from lapa_core.data.tfrecord import RecordPlace

    offset, length, feature = request.address.split(":", 2)
    record = RecordPlace(path, int(offset), int(length))
    pictures = read_record_pictures(record, feature, request.numbers, request.num_frames)
    for place, picture in enumerate(pictures):
        out_NSSC[place] = preprocess(picture, image_px)


def _read_mcap(
    path: Path, request: FrameRequest, image_px: int, out_NSSC: NDArray[np.uint8]
) -> None:
    from lapa_core.data.mcap_pictures import read_chosen_pictures

    places = {number: place for place, number in enumerate(request.numbers)}
    for number, picture in read_chosen_pictures(
        path, request.address, request.numbers, request.num_frames
    ):
        out_NSSC[places.pop(number)] = preprocess(picture, image_px)
    if places:
        raise DataError(f"{path}: {request.address} has no picture {min(places)}; index it again")


def _read_lerobot(
    path: Path, request: FrameRequest, image_px: int, out_NSSC: NDArray[np.uint8]
) -> None:
    """Read an episode whose pictures lie in the tables; episodes in video files are `stored`."""
    from lapa_core.data.table_pictures import read_table_pictures

    episode, colon, camera = request.address.partition(":")
    if not colon:
        raise DataError(f"{path}: the index is of an older version; run `lapa data index` again")
    pictures = read_table_pictures(path, int(episode), camera, request.numbers, request.num_frames)
    for place, picture in enumerate(pictures):
        out_NSSC[place] = preprocess(picture, image_px)
