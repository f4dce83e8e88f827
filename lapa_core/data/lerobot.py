# SPDX-License-Identifier: Apache-2.0
"""Write LeRobot v3.0 data sets so that a crash never costs a saved episode; the reader is named here too.

Every file is written under a temporary name, flushed and renamed; `info.json`, which counts the
episodes, is replaced last. What a killed writer left beyond that count is ignored by the reader and
removed by the next writer. Neither lerobot nor torch is needed. Imports numpy, pyarrow and av.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.data import lerobot_format as fmt
from lapa_core.data.episode import check_rows
from lapa_core.data.lerobot_reader import LeRobotSource
from lapa_core.data.lerobot_tables import TableGroup, stored_stats
from lapa_core.data.stats import FeatureStats, aggregate, image_stats, numeric_stats, to_json
from lapa_core.data.video import VideoQuality, encode_video
from lapa_core.errors import DataError

__all__ = ["LeRobotSource", "LeRobotWriter"]


class LeRobotWriter:
    """Append episodes to a data set; opening an existing one resumes it.

    Not thread safe, and one writer per data set.

    Args:
        out: folder of the data set.
        fps: frames per second, a whole number as the format demands.
        features: see `lerobot_format.make_features`.
        robot_type: robot name for `info.json`.
        metadata: own facts for `info.json` under "lapa" (contract hash, action names, ...). Those of
            an existing data set must agree and are kept, `provenance` excepted.
        quality: video compression.

    Raises:
        DataError: the folder holds something else, or a data set of other features or rate.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        fps: int,
        features: fmt.Features,
        robot_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        quality: VideoQuality | None = None,
    ) -> None:
        self.path = Path(out)
        if isinstance(fps, bool) or int(fps) != fps or fps < 1:
            raise DataError(f"fps is {fps!r}; LeRobot v3 allows whole numbers >= 1: resample first")
        self.fps = int(fps)
        self.quality = quality or VideoQuality()
        self.cameras = fmt.camera_keys(features)
        self.features = {**{k: dict(v) for k, v in features.items()}, **fmt.AUTO_FEATURES}
        for name in self.cameras:
            shape = self.features[name]["shape"]
            self.features[name]["info"] = fmt.video_info(shape, self.fps, self.quality)
        self.robot_type = robot_type
        self.metadata = dict(metadata or {})
        self.num_episodes = self.num_frames = 0
        self._task_of: dict[str, int] = {}
        self._stats: dict[str, FeatureStats] = {}
        self._tables = TableGroup()
        if (self.path / fmt.INFO_PATH).is_file():
            self._resume()
        elif self.path.exists() and any(self.path.iterdir()):
            raise DataError(
                f"{self.path} is not empty and holds no data set; give a new or empty folder"
            )
        else:
            self._write_info(self.num_episodes, self.num_frames, self._task_of)

    def add_episode(
        self,
        frames_by_camera: Mapping[str, NDArray[np.uint8]],
        *,
        instruction: str,
        actions: NDArray | None = None,
        states: NDArray | None = None,
        extra: Mapping[str, NDArray] | None = None,
        source: str = "",
    ) -> int:
        """Write one episode; when this returns, the episode is on the disk and survives a crash.

        Args:
            frames_by_camera: short or full camera name to (T, H, W, 3) uint8 RGB.
            instruction: what the episode does.
            actions: (T, n) for feature `action`.
            states: (T, n) for feature `observation.state`.
            extra: further numeric features, (T,) or (T, n).
            source: where it came from; kept in the episode table as `lapa/source`.

        Returns:
            The index of the episode.

        Raises:
            DataError: a feature is missing, unknown, of a wrong shape or not finite; nothing is
                written.
        """
        frames = {self._camera_key(name): value for name, value in frames_by_camera.items()}
        num_frames = self._check_frames(frames)
        columns = self._check_columns(
            num_frames, {**(extra or {}), fmt.ACTION: actions, fmt.STATE: states}
        )
        task_of = {**self._task_of}
        task_index = task_of.setdefault(instruction, len(task_of))
        columns.update(self._auto_columns(num_frames, task_index))
        stats = {name: numeric_stats(value) for name, value in columns.items()}
        stats.update({name: image_stats(value) for name, value in frames.items()})
        row = {
            "episode_index": self.num_episodes,
            "tasks": [instruction],
            "length": num_frames,
            "dataset_from_index": self.num_frames,
            "dataset_to_index": self.num_frames + num_frames,
            "lapa/source": source,
            **self._write_videos(frames, num_frames),
        }
        tables = self._tables.appended(fmt.data_table(columns, self.features), row, stats)
        total_stats = aggregate(self._stats, stats)
        tables.write(self.path)
        if len(task_of) > len(self._task_of):
            self._write_tasks(task_of)
        self._write_stats(total_stats)
        self._write_info(self.num_episodes + 1, self.num_frames + num_frames, task_of)
        # Only now is the episode counted; an error before this line leaves the writer as it was.
        self._tables, self._task_of, self._stats = tables, task_of, total_stats
        self.num_episodes += 1
        self.num_frames += num_frames
        return self.num_episodes - 1

    def _camera_key(self, name: str) -> str:
        key = name if name in self.cameras else fmt.CAMERA_PREFIX + name
        if key not in self.cameras:
            raise DataError(f"camera {name!r} is unknown; this data set has {self.cameras}")
        return key

    def _check_frames(self, frames: Mapping[str, NDArray[np.uint8]]) -> int:
        missing = [name for name in self.cameras if name not in frames]
        if missing:
            raise DataError(
                f"frames of {missing} are missing; every camera is needed in every episode"
            )
        num_frames = len(frames[self.cameras[0]])
        for name, value in frames.items():
            shape = (num_frames, *self.features[name]["shape"])
            if value.dtype != np.uint8 or value.shape != shape or not num_frames:
                raise DataError(
                    f"frames of {name} are {value.dtype} of shape {value.shape}; uint8 {shape} "
                    "with at least one frame is needed"
                )
        return num_frames

    def _check_columns(
        self, num_frames: int, given: Mapping[str, NDArray | None]
    ) -> dict[str, NDArray]:
        wanted = {n for n in self.features if n not in fmt.AUTO_FEATURES and n not in self.cameras}
        present = {name: np.asarray(value) for name, value in given.items() if value is not None}
        if present.keys() != wanted:
            raise DataError(
                f"numeric features given are {sorted(present)}; this data set has {sorted(wanted)}"
            )
        columns = {}
        for name, value in present.items():
            size = int(np.prod(self.features[name]["shape"]))
            value = value[:, None] if value.ndim == 1 and size == 1 else value
            check_rows("the episode", name, value, num_frames, ndim=2)
            if value.shape[1] != size:
                raise DataError(f"{name} has {value.shape[1]} columns; {size} are needed")
            columns[name] = value.astype(self.features[name]["dtype"])
        return columns

    def _auto_columns(self, num_frames: int, task_index: int) -> dict[str, NDArray]:
        return {
            "timestamp": np.arange(num_frames) / self.fps,
            "frame_index": np.arange(num_frames),
            "episode_index": np.full(num_frames, self.num_episodes),
            "index": np.arange(num_frames) + self.num_frames,
            "task_index": np.full(num_frames, task_index),
        }

    def _write_videos(self, frames: Mapping[str, NDArray], num_frames: int) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for name, value in frames.items():
            path = self._video_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".tmp")
            encode_video(temporary, value, self.fps, self.quality)
            columns[f"lapa/sha256/{name}"] = hashlib.sha256(temporary.read_bytes()).hexdigest()
            fmt.commit_file(temporary, path)
            chunk, file = divmod(self.num_episodes, fmt.FILES_PER_CHUNK)
            columns[f"videos/{name}/chunk_index"] = chunk
            columns[f"videos/{name}/file_index"] = file
            columns[f"videos/{name}/from_timestamp"] = 0.0
            columns[f"videos/{name}/to_timestamp"] = num_frames / self.fps
        return columns

    def _video_path(self, camera: str) -> Path:
        chunk, file = divmod(self.num_episodes, fmt.FILES_PER_CHUNK)
        name = fmt.VIDEO_TEMPLATE.format(video_key=camera, chunk_index=chunk, file_index=file)
        return self.path / name

    def _write_tasks(self, task_of: Mapping[str, int]) -> None:
        tasks = fmt.tasks_table(list(task_of))
        fmt.replace_file(self.path / fmt.TASKS_PATH, fmt.parquet_bytes([tasks]))

    def _write_stats(self, stats: Mapping[str, FeatureStats]) -> None:
        fmt.replace_file(self.path / fmt.STATS_PATH, fmt.json_bytes(to_json(stats)))

    def _write_info(self, num_episodes: int, num_frames: int, task_of: Mapping[str, int]) -> None:
        info = {
            "codebase_version": fmt.VERSION,
            "robot_type": self.robot_type,
            "total_episodes": num_episodes,
            "total_frames": num_frames,
            "total_tasks": len(task_of),
            "chunks_size": fmt.FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{num_episodes}"},
            "data_path": fmt.DATA_TEMPLATE,
            "video_path": fmt.VIDEO_TEMPLATE,
            "features": self.features,
            fmt.OWN_KEY: self.metadata,
        }
        fmt.replace_file(self.path / fmt.INFO_PATH, fmt.json_bytes(info))

    def _resume(self) -> None:
        """Take up a data set after its last counted episode and remove what was not counted."""
        info = fmt.read_info(self.path)
        given = {"fps": self.fps, "features": self.features, "robot_type": self.robot_type}
        for name, value in given.items():
            if info.get(name) != value:
                raise DataError(
                    f"{self.path} holds a data set whose {name} is {info.get(name)!r}, not "
                    f"{value!r}; write to another folder, or give the same"
                )
        stored = info.get(fmt.OWN_KEY, {})
        for name, value in self.metadata.items():
            if name != fmt.PROVENANCE and stored.get(name) != value:
                raise DataError(
                    f"{self.path} was written with {name} {stored.get(name)!r}, not {value!r}; write "
                    "to another folder"
                )
        self.metadata = stored
        self.num_episodes = int(info["total_episodes"])
        self.num_frames = int(info["total_frames"])
        for temporary in self.path.rglob("*.tmp"):
            temporary.unlink()
        self._tables = TableGroup.read(self.path, self.num_episodes)
        self._tables.remove_next(self.path)
        for camera in self.cameras:
            self._video_path(camera).unlink(missing_ok=True)
        if self.num_episodes:
            tasks = fmt.read_tasks(self.path / fmt.TASKS_PATH)[: int(info["total_tasks"])]
            self._task_of = {text: index for index, text in enumerate(tasks)}
            self._tables.write(self.path)
            self._write_tasks(self._task_of)
            self._stats = stored_stats(self.path, self.num_episodes)
            self._write_stats(self._stats)
