# SPDX-License-Identifier: Apache-2.0
"""Turn an RLDS data set, HDF5 files, or a folder of videos, frames or recordings, into a LeRobot v3 data set.

LeRobot v3 has one whole rate for everything. A video of another or a varying rate is put on that grid by
holding the newest frame, and the true time of each frame is kept in `observation.capture_time`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lapa_core.actions.delta import ACTION_NAMES
from lapa_core.checkpoint import provenance
from lapa_core.data import lerobot_format as fmt
from lapa_core.data.episode import (
    Episode,
    EpisodeSource,
    ManyCameras,
    OnePathEach,
    open_source,
)
from lapa_core.data.hdf5 import AlohaSource, RobomimicSource
from lapa_core.data.lerobot import LeRobotSource, LeRobotWriter
from lapa_core.data.video import VideoQuality
from lapa_core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What became of a source."""

    num_episodes: int = 0
    """Episodes added to the data set."""
    num_frames: int = 0
    """Frames added."""
    num_known: int = 0
    """Episodes that the data set held before."""
    refusals: list[str] = field(default_factory=list)
    """Why an episode was left out, one sentence each."""


def import_source(
    source_path: str | Path,
    out: str | Path,
    *,
    cameras: tuple[str, ...] = (),
    fps: int | None = None,
    image_px: int | None = None,
    arm: Literal["left", "right"] = "right",
    quality: VideoQuality | None = None,
    progress: bool = False,
) -> ImportReport:
    """Write every episode of a source to a LeRobot v3 data set; an existing one is continued.

    Args:
        source_path: RLDS data set, HDF5 of robomimic or ALOHA, or folder of videos, of sub-folders of frames, or of
            MCAP recordings.
        out: folder of the data set.
        cameras: cameras to take; empty takes the first.
        fps: rate of the data set; None takes the source's own, which must be whole and one for all.
        image_px: side of the square frames to store; None keeps their size, which must be one for all.
        arm: which arm of ALOHA's two.
        quality: video compression.
        progress: show a progress bar.

    Raises:
        DataError: the source cannot be read, is LeRobot already, or no episode could be imported.
    """
    source = open_source(source_path, camera=cameras[0] if cameras else None, arm=arm)
    if isinstance(source, LeRobotSource):
        raise DataError(f"{source_path} is a LeRobot v3 data set already; use it as it is")
    names = cameras or ((source.camera,) if isinstance(source, ManyCameras) else ("front",))
    if len(names) > 1 and not isinstance(source, ManyCameras):
        raise DataError(f"{source_path} has one camera; {len(names)} were named")
    known: set[str] = set()
    if (Path(out) / fmt.INFO_PATH).is_file():
        written = LeRobotSource(out)
        known = {written.origin(index) for index in range(len(written))}
    writer: LeRobotWriter | None = None
    num_known, refusals = 0, []
    start = (0, 0)
    for index in tqdm(range(len(source)), desc="importing", unit="episode", disable=not progress):
        origin = _origin(source, index)
        if origin in known:
            num_known += 1
            continue
        try:
            episode = source.episode(index, image_px)
            rate = _rate(episode, fps)
            views = _views(source, index, names, episode, image_px)
            if writer is None:
                writer = _open(Path(out), source, views, episode, rate, quality)
                start = (writer.num_episodes, writer.num_frames)
            _add(writer, episode, views, rate, origin)
        except DataError as error:
            refusals.append(f"episode {index}: {error}")
    if writer is None and not num_known:
        raise DataError(f"no episode of {source_path} could be imported; {refusals[0]}")
    added = (writer.num_episodes - start[0], writer.num_frames - start[1]) if writer else (0, 0)
    return ImportReport(
        num_episodes=added[0], num_frames=added[1], num_known=num_known, refusals=refusals
    )


def hold(times_s: NDArray[np.float64], fps: int) -> NDArray[np.int64]:
    """Return, for each tick k / fps from the first to the last time, the newest frame at or before it."""
    ticks_s = (
        times_s[0] + np.arange(int(np.floor((times_s[-1] - times_s[0]) * fps + 1e-6)) + 1) / fps
    )
    return np.searchsorted(times_s, ticks_s + 1e-6, side="right") - 1


def _origin(source: EpisodeSource, index: int) -> str:
    """Name an episode so that it is known again wherever the source lies."""
    if isinstance(source, OnePathEach | RobomimicSource | AlohaSource):
        return source.origin(index)
    return f"{_label(source)}[{index}]"


def _label(source: EpisodeSource) -> str:
    return source.name if isinstance(source, ManyCameras) else source.path.resolve().name


def _rate(episode: Episode, fps: int | None) -> int:
    if fps is not None:
        return fps
    steps_s = np.diff(episode.timestamps_s)
    whole = round(episode.fps)
    if not len(steps_s) or np.abs(steps_s - 1 / max(whole, 1)).max() > 2e-3:
        raise DataError(
            f"{episode.source} has {episode.fps:.3f} frames a second on average, which is no constant "
            "whole rate; name the rate to resample to (fps)"
        )
    return whole


def _views(
    source: EpisodeSource,
    index: int,
    names: tuple[str, ...],
    episode: Episode,
    image_px: int | None,
) -> dict[str, NDArray[np.uint8]]:
    if not isinstance(source, ManyCameras) or len(names) == 1:
        return {names[0]: episode.frames}
    return source.views(index, names, image_px)


def _open(
    out: Path,
    source: EpisodeSource,
    views: dict[str, NDArray[np.uint8]],
    episode: Episode,
    rate: int,
    quality: VideoQuality | None,
) -> LeRobotWriter:
    features = fmt.make_features(
        {name: (v.shape[1], v.shape[2]) for name, v in views.items()},
        action_names=None if episode.actions is None else ACTION_NAMES,
        state_names=None if episode.states is None else fmt.STATE_NAMES,
        extra={fmt.CAPTURE_TIME: ("float64", 1)},
    )
    metadata: dict[str, Any] = {
        "imported_from": _label(source),
        "action_names": list(ACTION_NAMES) if episode.actions is not None else None,
        fmt.PROVENANCE: provenance(),
    }
    return LeRobotWriter(out, fps=rate, features=features, metadata=metadata, quality=quality)


def _add(
    writer: LeRobotWriter,
    episode: Episode,
    views: dict[str, NDArray[np.uint8]],
    rate: int,
    origin: str,
) -> None:
    times_s = episode.timestamps_s
    if rate != writer.fps:
        raise DataError(
            f"{episode.source} has {rate} frames a second, the data set {writer.fps}; name one rate "
            "to resample to (fps)"
        )
    chosen = hold(times_s, rate)
    if episode.actions is not None and not np.array_equal(chosen, np.arange(len(episode))):
        raise DataError(
            f"{episode.source}: actions cannot be resampled; import at the source's own "
            f"{episode.fps:g} Hz"
        )
    writer.add_episode(
        {name: frames[chosen] for name, frames in views.items()},
        instruction=episode.instruction,
        actions=None if episode.actions is None else episode.actions[chosen],
        states=None if episode.states is None else episode.states[chosen],
        extra={fmt.CAPTURE_TIME: times_s[chosen]},
        source=origin,
    )
