# SPDX-License-Identifier: Apache-2.0
"""Read LeRobot v3.0 data sets: ours, and official ones (many episodes per file, any template).

An episode has actions only where their names say that they are end-effector deltas, see `lerobot_actions`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapa_core.data import lerobot_format as fmt
from lapa_core.data.episode import Episode
from lapa_core.data.lerobot_actions import delta_reader
from lapa_core.data.video import decode_frames
from lapa_core.errors import DataError
from lapa_core.image import PICTURE_DAMAGE, preprocess, read_rgb


class LeRobotSource:
    """Episodes of a LeRobot v3.0 data set seen by one of its cameras.

    Args:
        path: folder of the data set.
        camera: full (`observation.images.front`) or last (`front`) name; None takes the first.

    Raises:
        DataError: a metadata file is missing, damaged or of another version, or the camera is
            unknown.
    """

    def __init__(self, path: str | Path, *, camera: str | None = None) -> None:
        self.path = Path(path)
        self.info = fmt.read_info(self.path)
        self.features: fmt.Features = self.info["features"]
        self.fps = float(self.info["fps"])
        self.cameras = fmt.camera_keys(self.features)
        self.camera = self._choose(camera)
        self.metadata: dict[str, Any] = self.info.get(fmt.OWN_KEY, {})
        self._to_deltas = delta_reader(self.path, self.features)
        self._rows = self._read_episode_table()
        self._data: tuple[Path | None, pa.Table | None] = (None, None)

    def __len__(self) -> int:
        return len(self._rows)

    def instruction(self, index: int) -> str:
        """The instruction of an episode, without reading its frames."""
        tasks = self._row(index)["tasks"]
        return tasks[0] if tasks else ""

    def length(self, index: int) -> int:
        """Number of frames of an episode, without reading it."""
        return int(self._row(index)["length"])

    def origin(self, index: int) -> str:
        """Where an episode that we wrote came from; empty for those of other tools."""
        return str(self._row(index).get("lapa/source") or "")

    def columns(self, index: int) -> dict[str, NDArray]:
        """Return the numeric features of an episode: (T,) for shape [1], (T, n) for [n]."""
        table = self._episode_data(self._row(index), index)
        return {
            name: fmt.column_to_numpy(table[name], feature)
            for name, feature in self.features.items()
            if name in table.column_names and feature["dtype"] not in fmt.NOT_NUMBERS
        }

    def episode(self, index: int, image_px: int | None = None) -> Episode:
        """Read one episode; with `image_px` its frames went through `preprocess`.

        Raises:
            DataError: a file is missing or damaged, or does not hold the frames that the tables
                promise.
        """
        row = self._row(index)
        columns = self.columns(index)
        decode = (
            self._decode_video
            if self.features[self.camera]["dtype"] == "video"
            else self._decode_images
        )
        convert = (
            (lambda image: image)
            if image_px is None
            else (lambda image: preprocess(image, image_px))
        )
        frames = np.stack(decode(row, index, convert))
        source = f"{self.path} episode {index}"
        actions, states = None, columns.get(fmt.STATE)
        if self._to_deltas is not None and fmt.ACTION in columns:
            actions = self._to_deltas(_as_matrix(columns[fmt.ACTION]), source)
        return Episode(
            frames=frames,
            instruction=self.instruction(index),
            fps=self.fps,
            actions=None if actions is None else _as_matrix(actions),
            states=None if states is None else _as_matrix(states),
            source=source,
        )

    def video_path(self, index: int, camera: str) -> Path:
        """The file that holds the frames of an episode."""
        row, prefix = self._row(index), f"videos/{camera}"
        said = all(
            f"{prefix}/{name}" in row for name in ("chunk_index", "file_index", "from_timestamp")
        )
        if not self.info.get("video_path") or not said:
            raise DataError(
                f"{self.path}: episode {index} does not say where its video of {camera} is; write the set again"
            )
        return self.path / self.info["video_path"].format(
            video_key=camera,
            chunk_index=row[f"{prefix}/chunk_index"],
            file_index=row[f"{prefix}/file_index"],
        )

    def video_start_s(self, index: int) -> float:
        """Time of an episode's first frame in the video file of the chosen camera [s]."""
        return float(self._row(index)[f"videos/{self.camera}/from_timestamp"])

    def data_path(self, index: int) -> Path:
        """The table that holds the rows of an episode."""
        row = self._row(index)
        return self.path / self.info["data_path"].format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )

    def _choose(self, camera: str | None) -> str:
        if camera is None:
            return self.cameras[0]
        matches = [
            key for key in self.cameras if camera in (key, key.removeprefix(fmt.CAMERA_PREFIX))
        ]
        if not matches:
            raise DataError(f"camera {camera!r} is unknown; {self.path} has {self.cameras}")
        return matches[0]

    def _read_episode_table(self) -> list[dict[str, Any]]:
        total = int(self.info["total_episodes"])
        files = sorted(self.path.glob(fmt.EPISODES_GLOB))
        rows: list[dict[str, Any]] = []
        for file in files:
            table = fmt.read_parquet(file)
            rows += table.select(
                [c for c in table.column_names if not c.startswith("stats/")]
            ).to_pylist()
        # A killed writer may leave one row more than info.json counts: it was never saved.
        rows = sorted(
            (r for r in rows if r["episode_index"] < total), key=lambda r: r["episode_index"]
        )
        if [r["episode_index"] for r in rows] != list(range(total)):
            raise DataError(
                f"{self.path}: {fmt.INFO_PATH} counts {total} episodes, but meta/episodes describes "
                f"{len(rows)}; copy the missing files, or correct the count"
            )
        return rows

    def _row(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self._rows):
            raise DataError(
                f"episode {index} does not exist; {self.path} has 0 to {len(self._rows) - 1}"
            )
        return self._rows[index]

    def _episode_data(self, row: dict[str, Any], index: int) -> pa.Table:
        path = self.data_path(index)
        if self._data[0] != path:
            self._data = (path, fmt.read_parquet(path))
        table = self._data[1]
        if table is None or "episode_index" not in table.column_names:
            raise DataError(f"{path} has no column episode_index; write the set again")
        mine = np.flatnonzero(table["episode_index"].to_numpy() == index)
        length = int(row["length"])
        if len(mine) != length or (length and mine[-1] - mine[0] + 1 != length):
            raise DataError(
                f"{path}: episode {index} has {len(mine)} rows, its table says {length} in one "
                "piece; run `lapa data doctor` and write the set again"
            )
        return table.slice(int(mine[0]), length)

    def _decode_video(
        self, row: dict[str, Any], index: int, convert: Callable[[NDArray], NDArray]
    ) -> list[NDArray[np.uint8]]:
        path, length = self.video_path(index, self.camera), int(row["length"])
        start_s = self.video_start_s(index)
        half_s = 0.5 / self.fps
        frames, times_s = [], []
        for time_s, frame in decode_frames(
            path, start_s - half_s, start_s + length / self.fps - half_s
        ):
            frames.append(convert(frame))
            times_s.append(time_s - start_s)
        expected_s = np.arange(length) / self.fps
        if (
            len(frames) != length
            or np.abs(np.asarray(times_s) - expected_s).max() > 0.25 / self.fps
        ):
            raise DataError(
                f"{path}: episode {index} should have {length} frames at {self.fps:g} Hz from "
                f"{start_s:.3f} s; found {len(frames)}{' at other times' if len(frames) == length else ''}: "
                "the file is cut short or from_timestamp or fps is wrong; run `lapa data doctor`"
            )
        return frames

    def _decode_images(
        self, row: dict[str, Any], index: int, convert: Callable[[NDArray], NDArray]
    ) -> list[NDArray[np.uint8]]:
        cells = self._episode_data(row, index)[self.camera].to_pylist()
        return [
            convert(
                decode_cell(self.path, cell, f"{self.path}: picture {number} of episode {index}")
            )
            for number, cell in enumerate(cells)
        ]


def decode_cell(root: Path, cell: Any, label: str) -> NDArray[np.uint8]:
    """Return the picture of a cell as RGB (H, W, 3).

    Args:
        root: folder of the data set; a cell may name a file in it instead of holding the bytes.
        cell: the dictionary `bytes`, `path` that the format keeps a picture in.
        label: what to name in errors.

    Raises:
        DataError: the cell is empty, or the picture missing or damaged.
    """
    try:
        return read_rgb(io.BytesIO(cell["bytes"]) if cell.get("bytes") else root / cell["path"])
    except (*PICTURE_DAMAGE, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{label} cannot be read ({error}); copy the set again") from error


def _as_matrix(values: NDArray) -> NDArray[np.float32]:
    return np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)
