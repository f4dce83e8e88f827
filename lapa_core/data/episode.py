# SPDX-License-Identifier: Apache-2.0
"""What every data set is made of, wherever it came from: an episode, and a source of episodes.

Imports numpy; readers are imported only by `open_source`, so that a module can name the types
alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lapa_core.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One demonstration or clip seen by one camera.

    Raises:
        DataError: lengths disagree, a shape or dtype is wrong, or a number is not finite.
    """

    frames: NDArray[np.uint8]
    """(T, H, W, 3) RGB."""
    instruction: str
    """What the episode does, in words; empty when nobody wrote it down."""
    fps: float
    """Frames per second; for a variable frame rate the mean rate."""
    actions: NDArray[np.float32] | None = None
    """(T, 7) end-effector deltas in the order of `ACTION_NAMES`; row t is applied after frame t."""
    states: NDArray[np.float32] | None = None
    """(T, D) measured state at each frame."""
    timestamps_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(T,) time of each frame from the episode's start [s]; filled with t / fps when empty."""
    source: str = ""
    """Where the episode came from, for error messages and provenance."""

    def __post_init__(self) -> None:
        label = self.source or "an episode"
        frames = self.frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise DataError(
                f"{label}: frames are {frames.dtype} of shape {frames.shape}; uint8 (T, H, W, 3) "
                "with T >= 1 is needed"
            )
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise DataError(
                f"{label}: fps is {self.fps}; it must be a positive number of frames per second"
            )
        if not len(self.timestamps_s):
            object.__setattr__(self, "timestamps_s", np.arange(len(frames)) / self.fps)
        check_rows(label, "timestamps_s", self.timestamps_s, len(frames), ndim=1)
        if (np.diff(self.timestamps_s) <= 0).any():
            raise DataError(
                f"{label}: timestamps do not increase; sort the frames and drop the doubles"
            )
        if self.actions is not None:
            check_rows(label, "actions", self.actions, len(frames), ndim=2)
            if self.actions.shape[1] != 7:
                raise DataError(
                    f"{label}: actions have {self.actions.shape[1]} columns; 7 are needed"
                )
        if self.states is not None:
            check_rows(label, "states", self.states, len(frames), ndim=2)

    def __len__(self) -> int:
        return len(self.frames)


def check_rows(label: str, name: str, rows: NDArray, num_frames: int, *, ndim: int) -> None:
    """Refuse an array that has not one finite row per frame."""
    if rows.ndim != ndim or len(rows) != num_frames:
        raise DataError(
            f"{label}: {name} has shape {rows.shape}; {num_frames} rows (one per frame) and {ndim} "
            "axes are needed"
        )
    if np.issubdtype(rows.dtype, np.floating) and not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows.reshape(num_frames, -1)).all(axis=1))[0])
        raise DataError(
            f"{label}: {name} row {bad} is not finite; correct it or leave the episode out"
        )


class EpisodeSource(Protocol):
    """A set of episodes that are read one at a time."""

    path: Path
    """Folder that the episodes are read from."""

    def __len__(self) -> int: ...

    def episode(self, index: int, image_px: int | None = None) -> Episode:
        """Read one episode; with `image_px` its frames went through `preprocess`."""
        ...


@runtime_checkable
class ManyCameras(Protocol):
    """What sources of several cameras can do beside `EpisodeSource`."""

    name: str
    """Name of the data set."""
    camera: str
    """Camera of `episode`."""

    def views(
        self, index: int, cameras: tuple[str, ...], image_px: int | None = None
    ) -> dict[str, NDArray[np.uint8]]:
        """Return the frames of several cameras of one episode, (T, H, W, 3) each."""
        ...


class OnePathEach:
    """What the sources share whose every episode is a file or a folder of its own.

    Args:
        path: the data folder.
        paths: where each episode lies, below it.
        lacks: what the folder does not hold when there are none.

    Raises:
        DataError: there are none.
    """

    KIND: ClassVar[str]
    """Of its clips in an index."""

    def __init__(self, path: str | Path, paths: list[Path], lacks: str) -> None:
        self.path, self.paths = Path(path), paths
        if not paths:
            raise DataError(f"{path} holds no {lacks}")

    def __len__(self) -> int:
        return len(self.paths)

    def origin(self, index: int) -> str:
        """Name an episode so that it is known again wherever the folder lies."""
        return self.paths[index].relative_to(self.path).as_posix()

    def origins(self) -> list[str]:
        """Name all episodes."""
        return [self.origin(index) for index in range(len(self))]

    def at(self, index: int) -> Path:
        """Return where an episode lies.

        Raises:
            DataError: there is no such episode.
        """
        if not 0 <= index < len(self):
            raise DataError(f"episode {index} does not exist; {self.path} has {len(self)}")
        return self.paths[index]


def open_source(
    path: str | Path,
    *,
    camera: str | None = None,
    fps: float | None = None,
    arm: Literal["left", "right"] = "right",
) -> EpisodeSource:
    """Open a LeRobot v3 or RLDS (TFDS) data set, HDF5 files, or a folder of videos, of MCAP recordings or of frames.

    Args:
        path: folder of the data set. Of several kinds in one folder the first of this order is read.
        camera: which camera to read, by its full or last name; None takes the first one of the set.
        fps: frames per second of what does not say it itself: folders of frames, unknown RLDS sets, ALOHA.
        arm: which arm of ALOHA's two.

    Raises:
        DataError: the folder is missing or holds none of these; the message says what it holds.
    """
    path = Path(path)
    from lapa_core.data.hdf5 import HDF5_SUFFIXES, open_hdf5

    if path.is_file() and path.suffix.lower() in HDF5_SUFFIXES:
        return open_hdf5(path, camera=camera, fps=fps, arm=arm)
    if not path.is_dir():
        kind = "a file" if path.exists() else "missing"
        raise DataError(f"{path} is {kind}; give the folder of a data set")
    if (path / "meta" / "info.json").is_file():
        from lapa_core.data.lerobot import LeRobotSource

        return LeRobotSource(path, camera=camera)
    from lapa_core.data.rlds import RldsSource, find_rlds

    tfds = find_rlds(path)
    if tfds is not None:
        return RldsSource(tfds, camera=camera, fps=fps)
    from lapa_core.data.frame_folders import PICTURE_SUFFIXES, FrameFolderSource
    from lapa_core.data.mcap_source import MCAP_SUFFIX, McapSource
    from lapa_core.data.videos import VIDEO_SUFFIXES, VideoFolderSource

    suffixes = {p.suffix.lower() for p in path.rglob("*")}
    kinds = {
        "HDF5 files": suffixes & set(HDF5_SUFFIXES),
        "videos": suffixes & set(VIDEO_SUFFIXES),
        "MCAP recordings": suffixes & {MCAP_SUFFIX},
        "pictures": suffixes & set(PICTURE_SUFFIXES),
    }
    found_kinds = [kind for kind, of_kind in kinds.items() if of_kind]
    if len(found_kinds) > 1:
        log.warning(
            "%s holds %s: only the %s are read; give a folder of one kind to read the others",
            path, " and ".join(found_kinds), found_kinds[0],
        )  # fmt: skip
    if suffixes & set(HDF5_SUFFIXES):
        return open_hdf5(path, camera=camera, fps=fps, arm=arm)
    if suffixes & set(VIDEO_SUFFIXES):
        return VideoFolderSource(path)
    if MCAP_SUFFIX in suffixes:
        return McapSource(path, camera=camera)
    if suffixes & set(PICTURE_SUFFIXES):
        return FrameFolderSource(path, fps=fps)
    found = sorted(p.name for p in path.iterdir())
    if "index.json" in found:
        raise DataError(
            f"{path} is an index of `lapa data index`, which only training and labelling latent actions read; give the "
            "data that it was made of"
        )
    raise DataError(
        f"{path} is no data set that can be read: it holds {found[:8] or 'nothing'}. Allowed: LeRobot v3 "
        "(meta/info.json), one RLDS version (features.json), HDF5 of robomimic or ALOHA, videos "
        f"({', '.join(VIDEO_SUFFIXES)}), finished MCAP recordings, or sub-folders of pictures "
        f"({', '.join(PICTURE_SUFFIXES)})"
    )
