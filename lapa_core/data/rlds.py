# SPDX-License-Identifier: Apache-2.0
"""Read RLDS data sets written by TensorFlow Datasets, BridgeData V2 first of all, without TensorFlow.

Actions and states come out with rotation vectors. The orientation of BridgeData's state is counted
from its own gripper-down pose, and stays so. Imports numpy, scipy and Pillow.
"""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapa_core.data.episode import Episode
from lapa_core.data.euler import deltas_from_euler, euler_to_rotation_vector
from lapa_core.data.lerobot_format import read_json
from lapa_core.data.tfrecord import Feature, RecordPlace, index_records, parse_example
from lapa_core.errors import DataError
from lapa_core.image import PICTURE_DAMAGE, preprocess, read_rgb

log = logging.getLogger(__name__)

RATES_HZ = {"bridge_dataset": 5.0}
"""Control rates that the files themselves do not state, by data set name."""

_IMAGE_PREFIX = "steps/observation/"
_ACTION = "steps/action"
_STATE = "steps/observation/state"
_TEXT = "steps/language_instruction"
_SHARD = re.compile(r"-(?P<split>[^-]+)\.tfrecord-(?P<number>\d{5})-of-(?P<total>\d{5})$")


class RldsSet:
    """What the metadata of one split of an RLDS data set says; no shard is opened.

    Actions and states of another shape than seven numbers are left out.

    Args:
        path: folder with `features.json`, `dataset_info.json` and the shards.
        camera: observation key such as `image_0`; None takes the first.
        split: which split to read.
        fps: steps per second; None looks the data set's name up in `RATES_HZ`.

    Raises:
        DataError: metadata or a shard is missing, damaged, or of a shape that is not read.
    """

    shards: list[tuple[Path, int]]
    """File of each shard, in order, and the number of records that it should hold."""

    def __init__(
        self,
        path: str | Path,
        *,
        camera: str | None = None,
        split: str = "train",
        fps: float | None = None,
    ) -> None:
        self.path = Path(path)
        info = read_json(self.path / "dataset_info.json")
        self.name = str(info.get("name", ""))
        rate = fps if fps is not None else RATES_HZ.get(self.name)
        if rate is None or not rate > 0:
            raise DataError(
                f"{self.path}: the files do not say how many steps a second {self.name!r} has, and "
                f"fps is {fps}; give a positive fps (known without it: {RATES_HZ})"
            )
        self.fps = float(rate)
        self._columns = _step_features(self.path / "features.json")
        self.cameras = sorted(n for n, f in self._columns.items() if "image" in f)
        self.camera = self._choose(camera)
        self._other_shapes = {name: self._set_aside(name) for name in ("action", "state")}
        self.shards = self._list_shards(info, split)

    def _choose(self, camera: str | None) -> str:
        if not self.cameras:
            raise DataError(f"{self.path / 'features.json'} names no camera; one is needed")
        if camera is None:
            return self.cameras[0]
        if camera not in self.cameras:
            raise DataError(f"camera {camera!r} is unknown; {self.path} has {self.cameras}")
        return camera

    def _set_aside(self, name: str) -> list[str] | None:
        """Leave a column out that has not seven numbers, and return its shape; None where nothing is left out."""
        feature = self._columns.get(name)
        if feature is None:
            return None
        try:
            shape: list[str] = feature["tensor"]["shape"]["dimensions"]
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{self.path / 'features.json'} describes no shape of {name} ({error!r}); copy the file again"
            ) from error
        if shape == ["7"]:
            return None
        del self._columns[name]
        return shape

    def _list_shards(self, info: dict[str, Any], split: str) -> list[tuple[Path, int]]:
        try:
            said = {
                str(entry["name"]): [int(length) for length in entry.get("shardLengths", [])]
                for entry in info.get("splits", [])
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.path / 'dataset_info.json'} does not list its splits as TFDS does ({error!r}); copy it again"
            ) from error
        if split not in said:
            raise DataError(f"split {split!r} is unknown; {self.path} has {sorted(said)}")
        lengths = said[split]
        shards = {}
        for path in self.path.iterdir():
            match = _SHARD.search(path.name)
            if match and match["split"] == split and int(match["total"]) == len(lengths):
                shards[int(match["number"])] = path
        missing = sorted(set(range(len(lengths))) - set(shards))
        if missing:
            raise DataError(
                f"{self.path}: shards {missing[:8]} of {len(lengths)} of split {split!r} are missing; "
                "copy them again"
            )
        return [(shards[number], length) for number, length in enumerate(lengths)]


class RldsSource(RldsSet):
    """Episodes of one split of an RLDS data set seen by one of its cameras; arguments as of `RldsSet`.

    Raises:
        DataError: as `RldsSet`, or a shard is cut short or damaged.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        camera: str | None = None,
        split: str = "train",
        fps: float | None = None,
    ) -> None:
        super().__init__(path, camera=camera, split=split, fps=fps)
        if shape := self._other_shapes["action"]:
            log.warning(
                "%s: its actions have shape %s and are left out; read are seven numbers, x, y, z, roll, pitch, yaw and "
                "gripper", self.path, shape,
            )  # fmt: skip
        if "action" in self._columns and self.name not in RATES_HZ:
            log.warning(
                "%s: %r is not known here; its actions are taken as x, y, z [m], roll, pitch, yaw [rad] from step to "
                "step and a gripper, 0 closed to 1 open: see that they are",
                self.path, self.name,
            )  # fmt: skip
        self._records = [
            place for shard, length in self.shards for place in list_records(shard, length)
        ]

    def __len__(self) -> int:
        return len(self._records)

    def episode(self, index: int, image_px: int | None = None) -> Episode:
        """Read one episode; with `image_px` its frames went through `preprocess`.

        Raises:
            DataError: the record is damaged, its lengths disagree, or the camera was not there.
        """
        if not 0 <= index < len(self._records):
            raise DataError(f"episode {index} does not exist; {self.path} has {len(self)} episodes")
        place = self._records[index]
        features = parse_example(place.read())
        source = f"{place.path} record at byte {place.offset}"
        frames = self._frames(features, self.camera, source, image_px)
        return Episode(
            frames=frames,
            instruction=_text(features),
            fps=self.fps,
            actions=_rows(features, _ACTION, len(frames), source, self._columns),
            states=_rows(features, _STATE, len(frames), source, self._columns),
            source=source,
        )

    def views(
        self, index: int, cameras: tuple[str, ...], image_px: int | None = None
    ) -> dict[str, NDArray[np.uint8]]:
        """Return the frames of several cameras of one episode, (T, H, W, 3) each."""
        place = self._records[index]
        features = parse_example(place.read())
        source = f"{place.path} record at byte {place.offset}"
        return {name: self._frames(features, name, source, image_px) for name in cameras}

    def _frames(
        self, features: dict[str, Feature], camera: str, source: str, image_px: int | None
    ) -> NDArray[np.uint8]:
        """Decode the frames of one camera of a parsed record."""
        encoded = features.get(_IMAGE_PREFIX + camera)
        if not isinstance(encoded, list) or not encoded:
            raise DataError(f"{source} has no frames of {camera}; choose one of {self.cameras}")
        frames = []
        for number, data in enumerate(encoded):
            image = decode_frame(data, f"{source}: frame {number} of {camera}")
            frames.append(image if image_px is None else preprocess(image, image_px))
        return np.stack(frames)


def describe_record(data: bytes, camera: str, source: str) -> tuple[str, int, str]:
    """Return the feature that holds a camera's frames, how many there are, and the instruction of a record.

    Raises:
        DataError: no such frames, or a first one that cannot be decoded or is of one colour.
    """
    features = parse_example(data)
    key = _IMAGE_PREFIX + camera
    encoded = features.get(key)
    if not isinstance(encoded, list) or not encoded:
        raise DataError(f"{source} has no frames of {camera}; choose another camera")
    decode_frame(encoded[0], f"{source}: frame 0 of {camera}")
    return key, len(encoded), _text(features)


def decode_frame(data: bytes, source: str) -> NDArray[np.uint8]:
    """Decode an encoded picture as RGB (H, W, 3), or raise DataError: damaged, or of one colour."""
    try:
        image = read_rgb(io.BytesIO(data))
    except PICTURE_DAMAGE as error:
        raise DataError(f"{source} cannot be decoded ({error})") from error
    if image.min() == image.max():
        # BridgeData pads cameras that a scene did not have with black pictures.
        raise DataError(
            f"{source} is one colour: there was no such camera; choose another or leave the episode out"
        )
    return image


def _text(features: dict[str, Feature]) -> str:
    texts = features.get(_TEXT) or [b""]
    try:
        return bytes(texts[0]).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{_TEXT} is no UTF-8 text ({error})") from error


def find_rlds(path: Path) -> Path | None:
    """Return the one folder with `features.json` at or right below `path`; None where there is none, or several."""
    found = [p.parent for p in (path / "features.json", *sorted(path.glob("*/features.json")))]
    found = [folder for folder in found if (folder / "features.json").is_file()]
    return found[0] if len(found) == 1 else None


def list_records(shard: Path, length: int) -> list[RecordPlace]:
    """Return the places of the `length` records that a shard must hold, or raise DataError."""
    places = index_records(shard)
    if len(places) != length:
        raise DataError(
            f"{shard} holds {len(places)} records, dataset_info.json says {length}; "
            "the file is cut short or of another version: copy it again"
        )
    return places


def _rows(
    features: dict[str, Feature],
    name: str,
    num_frames: int,
    source: str,
    columns: dict[str, dict[str, Any]],
) -> NDArray[np.float32] | None:
    """Return (T, 7) of action or state with a rotation vector, or None when the set has none."""
    if name.rsplit("/", 1)[-1] not in columns:
        return None
    flat = features.get(name)
    if not isinstance(flat, np.ndarray) or flat.size != 7 * num_frames:
        found = "nothing" if not isinstance(flat, np.ndarray) else f"{flat.size} numbers"
        raise DataError(f"{source}: {name} holds {found}; {num_frames} rows of 7 are needed")
    rows = flat.reshape(num_frames, 7).astype(np.float64)
    if not np.isfinite(rows).all():
        raise DataError(f"{source}: {name} is not finite; leave the episode out")
    if name == _ACTION:
        return deltas_from_euler(rows, source).astype(np.float32)
    rows[:, 3:6] = euler_to_rotation_vector(rows[:, 3:6])
    return rows.astype(np.float32)


def _step_features(path: Path) -> dict[str, dict[str, Any]]:
    """Return the description of each step feature by its last name."""
    found: dict[str, dict[str, Any]] = {}

    def walk(node: dict[str, Any], name: str) -> None:
        if "featuresDict" in node:
            for child, content in node["featuresDict"]["features"].items():
                walk(content, child)
        elif "sequence" in node:
            walk(node["sequence"]["feature"], name)
        else:
            found[name] = node

    document = read_json(path)
    try:
        walk(document["featuresDict"]["features"]["steps"], "steps")
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} describes no steps ({error!r}); an RLDS data set is needed"
        ) from error
    return found
