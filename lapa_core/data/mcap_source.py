# SPDX-License-Identifier: Apache-2.0
"""Read a folder of MCAP recordings as episodes of pictures, without actions: what learning from videos needs.

Any ROS 2 recording with `sensor_msgs/Image` or `CompressedImage` will do, ours or not; `lapa data export` is the way
to episodes with actions. Imports numpy and mcap.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.episode import Episode, OnePathEach
from lapa_core.data.mcap_episode import PictureTopics, read_picture_topics, read_pictures
from lapa_core.errors import DataError
from lapa_core.image import preprocess

MCAP_SUFFIX = ".mcap"


def list_recordings(root: Path) -> list[Path]:
    """Return every finished recording under a folder, in order of its path."""
    return sorted(p for p in root.rglob(f"*{MCAP_SUFFIX}") if p.is_file())


def choose_topic(topics: PictureTopics, camera: str | None) -> tuple[str, NDArray[np.float64]]:
    """Return the picture topic of a camera, or the first by name that has colours, and the time of each picture [s].

    Raises:
        DataError: no pictures, an unknown or ambiguous camera, one without colours, fewer than two, or
            stamps that do not increase.
    """
    path, stamps_s = topics.path, topics.stamps_s
    if not stamps_s:
        raise DataError(f"{path} holds no sensor_msgs/Image or CompressedImage; record a camera")
    matches = sorted(t for t in stamps_s if camera is None or camera == t or camera in t.split("/"))
    if not matches or (camera is not None and len(matches) > 1 and camera not in matches):
        raise DataError(
            f"{path}: camera {camera!r} names {matches or 'no topic'}; give one of {sorted(stamps_s)}"
        )
    coloured = [topic for topic in matches if topic not in topics.unreadable]
    topic = camera if camera in matches else (coloured or matches)[0]
    if topic in topics.unreadable:
        raise DataError(f"{path} {topic}: {topics.unreadable[topic]}")
    times_s = stamps_s[topic]
    if len(times_s) < 2:
        raise DataError(f"{path} {topic} has one picture; at least two are needed")
    if (np.diff(times_s) <= 0).any():
        bad = int(np.flatnonzero(np.diff(times_s) <= 0)[0]) + 1
        raise DataError(
            f"{path} {topic}: the stamp of picture {bad} is not after the one before; correct the camera's driver"
        )
    return topic, times_s


class McapSource(OnePathEach):
    """Every `.mcap` file under a folder, in order of its path.

    Args:
        path: the data folder.
        camera: topic, or a part of one between slashes (`front`); None takes the first by name that has colours.

    Raises:
        DataError: there is no recording.
    """

    KIND = "mcap"

    def __init__(self, path: str | Path, *, camera: str | None = None) -> None:
        super().__init__(path, list_recordings(Path(path)), f"{MCAP_SUFFIX} file")
        self.camera = camera

    def episode(self, index: int, image_px: int | None = None) -> Episode:
        """Read one recording; with `image_px` its frames went through `preprocess`.

        Raises:
            DataError: the file is damaged or unfinished, or its pictures or stamps are not usable.
        """
        path = self.at(index)
        topics = read_picture_topics(path)
        topic, times_s = choose_topic(topics, self.camera)
        pictures = read_pictures(path, topic, range(len(times_s)))
        frames = [pictures[number] for number in range(len(times_s))]
        if image_px is not None:
            frames = [preprocess(frame, image_px) for frame in frames]
        return Episode(
            frames=np.stack(frames),
            instruction=topics.instruction,
            fps=(len(times_s) - 1) / (times_s[-1] - times_s[0]),
            timestamps_s=times_s - times_s[0],
            source=f"{path} {topic}",
        )
