# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in HDF5: files of robomimic (LIBERO's are of that kind) and of ALOHA.

Layouts as their projects describe them: robomimic has `data/demo_<i>/{actions, obs/<camera>_image}`, ALOHA one file per
episode with `observations/{qpos, images/<camera>}` and `action`. Imports numpy, scipy and h5py.
"""

from __future__ import annotations

import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lapa_core.data.episode import Episode
from lapa_core.data.instructions import read_instructions
from lapa_core.errors import DataError
from lapa_core.image import PICTURE_DAMAGE, preprocess, read_rgb
from lapa_core.robot.kinematics import forward_kinematics
from lapa_core.robot.models import get_arm_model

HDF5_SUFFIXES = (".hdf5", ".h5")
Arm = Literal["left", "right"]
_ALOHA_COLUMNS = {"left": slice(0, 7), "right": slice(7, 14)}
_ALOHA_MODEL, _ALOHA_HZ = "vx300s", 50.0
"""ALOHA's followers are ViperX-300s; it records at 50 Hz, which its files do not say."""
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError)
"""What h5py raises on a file that is missing, or damaged inside."""


def list_hdf5(path: Path) -> list[Path]:
    """Return the HDF5 files of a folder, in order of their path, or the file itself."""
    if path.is_file():
        return [path] if path.suffix.lower() in HDF5_SUFFIXES else []
    return sorted(p for p in path.rglob("*") if p.suffix.lower() in HDF5_SUFFIXES and p.is_file())


def open_hdf5(
    path: Path, *, camera: str | None = None, fps: float | None = None, arm: Arm = "right"
) -> RobomimicSource | AlohaSource:
    """Open what the first file says it is.

    Raises:
        DataError: no file, or of neither layout.
    """
    files = list_hdf5(path)
    if not files:
        raise DataError(f"{path} holds no HDF5 file ({', '.join(HDF5_SUFFIXES)})")
    with _opened(files[0]) as file:
        names = set(file)
    if "data" in names:
        return RobomimicSource(path, camera=camera, fps=fps)
    if {"observations", "action"} <= names:
        return AlohaSource(path, camera=camera, fps=fps, arm=arm)
    raise DataError(
        f"{files[0]} holds {sorted(names)}; robomimic has `data`, ALOHA has `observations` and `action`"
    )


class _Hdf5Source(ABC):
    """What both share: a list of episodes, cameras of the first, and views of several."""

    camera: str
    """Camera of `episode`."""
    cameras: list[str]
    """Cameras of the first episode."""

    def __init__(self, path: Path, places: list[tuple[Path, str]]) -> None:
        self.path = path
        self.name = path.resolve().name
        self._root = path if path.is_dir() else path.parent
        self._places = places
        if not places:
            raise DataError(f"{path} holds no episode")
        with _opened(places[0][0]) as file:
            self.cameras = sorted(self._pictures(file, places[0][1]))
        if not self.cameras:
            raise DataError(f"{places[0][0]} holds no camera images; export them with the data set")

    def __len__(self) -> int:
        return len(self._places)

    def origin(self, index: int) -> str:
        """Name an episode so that it is known again wherever the folder lies."""
        file, group = self._places[index]
        return "/".join([file.relative_to(self._root).as_posix(), *([group] if group else [])])

    def views(
        self, index: int, cameras: tuple[str, ...], image_px: int | None = None
    ) -> dict[str, NDArray[np.uint8]]:
        """Return the frames of several cameras of one episode, (T, H, W, 3) each."""
        path, group = self._place(index)
        with _opened(path) as file:
            pictures = self._pictures(file, group)
            return {name: self._frames(pictures, name, path, image_px) for name in cameras}

    def _place(self, index: int) -> tuple[Path, str]:
        if not 0 <= index < len(self):
            raise DataError(f"episode {index} does not exist; {self.path} has {len(self)} episodes")
        return self._places[index]

    def _choose(self, camera: str | None) -> str:
        if camera is not None and camera not in self.cameras:
            raise DataError(f"camera {camera!r} is unknown; {self.path} has {self.cameras}")
        return camera or self.cameras[0]

    def _instructions(self) -> dict[str, str]:
        return read_instructions(self._root, {self.origin(index) for index in range(len(self))})

    @abstractmethod
    def _pictures(self, file: h5py.File, group: str) -> dict[str, h5py.Dataset]:
        """Return the stored pictures of each camera of one episode."""

    def _frames(
        self, pictures: dict[str, h5py.Dataset], camera: str, path: Path, image_px: int | None
    ) -> NDArray[np.uint8]:
        if camera not in pictures:
            raise DataError(f"{path} has no camera {camera!r}; it has {sorted(pictures)}")
        stored = pictures[camera][()]
        if stored.dtype == np.uint8 and stored.ndim == 2:  # JPEG bytes, padded to one length
            stored = np.stack([_decode(row, f"{path}: {camera}") for row in stored])
        if stored.dtype != np.uint8 or stored.ndim != 4 or stored.shape[-1] != 3:
            raise DataError(
                f"{path}: {camera} is {stored.dtype} of shape {stored.shape}; uint8 (T, H, W, 3) is needed"
            )
        return (
            stored if image_px is None else np.stack([preprocess(one, image_px) for one in stored])
        )


class RobomimicSource(_Hdf5Source):
    """Demonstrations of robomimic whose actions are deltas of robosuite's OSC_POSE controller.

    The controller's scale is read from the file (`env_args`): -1 to 1 becomes metres and radians, the rotation is a
    rotation vector already, along the axes of the robot's base, and the gripper's -1 (open) to 1 (closed) becomes 1 to
    0. The instruction is LIBERO's (`problem_info`), or that of `instructions.jsonl`
    (`{"video": "file.hdf5/demo_0", "instruction": ...}`). Pictures are taken as they lie in the file: LIBERO's are
    upside down.

    Raises:
        DataError: no demonstration, no images, or a controller whose deltas cannot be told in metres.
    """

    def __init__(
        self, path: str | Path, *, camera: str | None = None, fps: float | None = None
    ) -> None:
        places = []
        for file in list_hdf5(Path(path)):
            with _opened(file) as opened:
                if "data" not in opened:
                    raise DataError(f"{file} has no group `data`; keep one kind of file per folder")
                demos = sorted(opened["data"], key=_number_in)
                places += [(file, demo) for demo in demos]
        super().__init__(Path(path), places)
        self.camera = self._choose(camera)
        self._texts = self._instructions()
        self._fps = fps

    def _pictures(self, file: h5py.File, group: str) -> dict[str, h5py.Dataset]:
        observed = file["data"][group].get("obs", {})
        return {
            n.removesuffix("_image").removesuffix("_rgb"): d
            for n, d in observed.items()
            if n.endswith(("_image", "_rgb"))
        }

    def episode(self, index: int, image_px: int | None = None) -> Episode:
        """Read one demonstration; with `image_px` its frames went through `preprocess`.

        Raises:
            DataError: the file is damaged or its arrays disagree.
        """
        path, group = self._place(index)
        with _opened(path) as file:
            about = _json_attribute(path, file["data"], "env_args").get("env_kwargs") or {}
            problem = _json_attribute(path, file["data"], "problem_info")
            stored = np.asarray(file["data"][group]["actions"], dtype=np.float64)
            frames = self._frames(self._pictures(file, group), self.camera, path, image_px)
        if stored.shape != (len(frames), 7) or not np.isfinite(stored).all():
            raise DataError(
                f"{path} {group}: actions have shape {stored.shape}, finite rows of 7 for {len(frames)} frames are "
                "needed"
            )
        actions = np.clip(stored, -1.0, 1.0)
        actions[:, :6] *= _osc_scale(path, about)
        actions[:, 6] = (1.0 - actions[:, 6]) / 2.0
        words = problem.get(
            "language_instruction", ""
        )  # LIBERO's readers join it and take its quotes away
        text = "".join(map(str, words)).strip().strip('"').strip()
        return Episode(
            frames=frames,
            instruction=self._texts.get(self.origin(index), text),
            fps=_rate(path, self._fps, about.get("control_freq")),
            actions=actions.astype(np.float32),
            source=f"{path} {group}",
        )


class AlohaSource(_Hdf5Source):
    """Episodes of ALOHA, one arm of the two; its joint targets become end-effector deltas by the arm's kinematics.

    Row t leads from the target before it (in row 0 from the measured joints) to target t: translation along the axes
    of that arm's base, rotation on the left. The gripper is the commanded one, 0 closed to 1 open.

    Raises:
        DataError: no episode, or no images.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        camera: str | None = None,
        fps: float | None = None,
        arm: Arm = "right",
    ) -> None:
        super().__init__(Path(path), [(file, "") for file in list_hdf5(Path(path))])
        if arm not in _ALOHA_COLUMNS:
            raise DataError(f"arm is {arm!r}; allowed are {sorted(_ALOHA_COLUMNS)}")
        self.camera, self._arm = self._choose(camera), arm
        self._texts = self._instructions()
        self._fps = _rate(self.path, fps, _ALOHA_HZ)

    def _pictures(self, file: h5py.File, group: str) -> dict[str, h5py.Dataset]:
        return dict(file.get("observations/images", {}))

    def episode(self, index: int, image_px: int | None = None) -> Episode:
        """Read one episode; with `image_px` its frames went through `preprocess`.

        Raises:
            DataError: the file is damaged or its arrays disagree.
        """
        path, group = self._place(index)
        columns = _ALOHA_COLUMNS[self._arm]
        with _opened(path) as file:
            frames = self._frames(self._pictures(file, group), self.camera, path, image_px)
            measured, targets = file["observations/qpos"][()], file["action"][()]
        for name, rows in (("qpos", measured), ("action", targets)):
            if rows.shape != (len(frames), 14) or not np.isfinite(rows).all():
                raise DataError(
                    f"{path}: {name} has shape {rows.shape}; finite rows of 14 for {len(frames)} frames are needed"
                )
        measured, targets = measured[:, columns], targets[:, columns]
        return Episode(
            frames=frames,
            instruction=self._texts.get(self.origin(index), ""),
            fps=self._fps,
            actions=_joint_deltas(np.concatenate([measured[:1], targets])).astype(np.float32),
            states=_poses7(measured).astype(np.float32),
            source=str(path),
        )


def _poses7(rows_T7: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return position [m], rotation vector [rad] and gripper of joints [rad] and gripper, (T, 7) both."""
    model = get_arm_model(_ALOHA_MODEL)
    poses = np.stack([forward_kinematics(model, joints) for joints in rows_T7[:, :6]])
    turns = Rotation.from_matrix(poses[:, :3, :3]).as_rotvec()
    return np.concatenate([poses[:, :3, 3], turns, np.clip(rows_T7[:, 6:], 0.0, 1.0)], axis=1)


def _joint_deltas(rows_T7: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (T - 1, 7) deltas that lead from row to row."""
    poses = _poses7(rows_T7)
    turns = Rotation.from_rotvec(poses[:, 3:6])
    turn = (turns[1:] * turns[:-1].inv()).as_rotvec()
    return np.concatenate([np.diff(poses[:, :3], axis=0), turn, poses[1:, 6:]], axis=1)


def _osc_scale(path: Path, about: dict[str, Any]) -> NDArray[np.float64]:
    """Return what 1 stands for in each of the six dimensions, from the controller's configuration."""
    controller = about.get("controller_configs")
    if isinstance(controller, list) and len(controller) == 1:  # one arm of a list of one
        controller = controller[0]
    controller = controller if isinstance(controller, dict) else {}
    parts = controller.get("body_parts") or {}
    controller = parts.get("right") or controller  # robosuite 1.5 lists the parts of a body
    highest = _six_numbers(controller.get("output_max"))
    lowest = _six_numbers(controller.get("output_min", (-highest).tolist()))
    delta = controller.get("control_delta", controller.get("input_type") == "delta")
    if controller.get("type") != "OSC_POSE" or not delta or not np.isfinite(highest).all():
        raise DataError(
            f"{path}: its controller is {controller.get('type')!r} with control_delta {delta!r} and output_max "
            f"{controller.get('output_max')!r}; deltas of OSC_POSE with a finite output_max are needed"
        )
    if not np.array_equal(lowest, -highest):
        raise DataError(
            f"{path}: its controller has output_min {controller['output_min']} and output_max "
            f"{controller['output_max']}; one must be minus the other, else an action of 0 would be a move"
        )
    return highest


def _six_numbers(value: Any) -> NDArray[np.float64]:
    """Return one number six times, or six numbers; NaN for anything else."""
    try:
        return np.broadcast_to(np.asarray(value, dtype=np.float64), 6)
    except (TypeError, ValueError):
        return np.full(6, np.nan)


def _rate(path: Path, given: float | None, said: Any) -> float:
    rate = given if given is not None else said
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise DataError(
            f"{path} says {said!r} rows a second, and fps is {given}; a positive rate is needed"
        )
    return float(rate)


def _json_attribute(path: Path, group: h5py.Group, name: str) -> dict[str, Any]:
    text = group.attrs.get(name, "{}")
    try:
        document = json.loads(text)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: attribute {name} is no JSON ({error})") from error
    if not isinstance(document, dict):
        raise DataError(
            f"{path}: attribute {name} holds a {type(document).__name__}; an object is needed"
        )
    return document


def _decode(data: NDArray[np.uint8], source: str) -> NDArray[np.uint8]:
    try:
        return read_rgb(io.BytesIO(data.tobytes()))
    except PICTURE_DAMAGE as error:
        raise DataError(f"{source}: a picture cannot be decoded ({error})") from error


def _number_in(name: str) -> tuple[int, str]:
    found = re.search(r"\d+", name)
    return (int(found.group()) if found else -1), name


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a file to read; what h5py finds wrong with it, or missing in it, is a DataError."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path} cannot be read ({error}); copy it again") from error
