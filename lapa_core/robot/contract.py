# SPDX-License-Identifier: Apache-2.0
"""The robot contract: every fact that training and the robot must agree on, in one strictly loaded YAML file.

Its hash travels in every data set and checkpoint; a policy trained under another contract is refused. Imports
numpy, scipy and yaml only, so that the arm node starts on a machine without torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lapa_core.errors import ContractError
from lapa_core.paths import config_dir
from lapa_core.robot.kinematics import forward_kinematics
from lapa_core.robot.models import ArmModel, get_arm_model

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class CameraContract:
    """One camera stream, as the robot publishes it and as a policy sees it."""

    topic: str
    """Relative topic name without `/image_raw`, for example `camera/front`."""
    encoding: str
    """Encoding on the wire; `rgb8` or `bgr8`. Policies always get RGB."""
    width_px: int
    """Width that the driver publishes."""
    height_px: int
    """Height that the driver publishes."""
    rate_hz: float
    """Frames per second that the driver publishes."""
    crop: str
    """`center_square`, the only crop there is: see `lapa_core.image`."""
    image_px: int
    """Side of the square that a policy sees."""


@dataclass(frozen=True, kw_only=True)
class RobotContract:
    """Everything in `config/robots/<name>.yaml`, checked."""

    name: str
    """Name of the contract; the file's stem."""
    robot_model: str
    """Arm, a key of `lapa_core.robot.models.ARM_MODELS`."""
    control_rate_hz: float
    """Deltas per second of policy and teleoperation."""
    command_rate_hz: float
    """Joint targets per second that the arm node streams."""
    interpolation_s: float
    """Duration of the minimum-jerk move to a new target; at most one control period."""
    watchdog_s: float
    """Without a new delta for this long the arm holds its measured position; two to five control periods."""
    max_observation_age_s: float
    """A policy acts on no frame older than this, the arm on no delta whose frame is older than this plus one period."""
    max_joint_state_age_s: float
    """Joint states older than this count as missing: the arm holds. At most `watchdog_s`."""
    cameras: dict[str, CameraContract]
    """Camera streams by name; `front` is what policies see."""
    workspace_min_m: Triple
    """Lowest corner of the box that the end-effector target may be in, `base_link` [m]."""
    workspace_max_m: Triple
    """Highest corner of that box [m]."""
    max_translation_m: float
    """Longest translation of one delta [m]; a longer one is refused."""
    max_rotation_rad: float
    """Largest rotation of one delta [rad]; a larger one is refused."""
    max_joint_step_rad: float
    """Largest change of any joint by one delta [rad]; a larger one is refused."""
    joint_limit_margin_rad: float
    """Distance kept from every joint limit [rad]."""
    ready_joints_rad: tuple[float, ...]
    """Six joints of the non-singular pose where episodes start [rad]."""
    ready_gripper: float
    """Gripper opening of the ready pose, 0 closed to 1 open."""
    stop: str
    """What "stop" means: `hold`, the measured position held with torque on until a person clears it."""

    def __post_init__(self) -> None:
        model = get_arm_model(self.robot_model)
        positive = ("control_rate_hz", "command_rate_hz", "interpolation_s", "watchdog_s", "max_observation_age_s",
                    "max_joint_state_age_s", "max_translation_m", "max_rotation_rad", "max_joint_step_rad")  # fmt: skip
        for field in positive:
            _require(
                _is_number(value := getattr(self, field)) and value > 0,
                field,
                value,
                "a number above 0",
            )
        _require(
            0 <= self.joint_limit_margin_rad < 0.5,
            "joint_limit_margin_rad",
            self.joint_limit_margin_rad,
            "0 to 0.5",
        )
        _require(
            self.interpolation_s <= 1 / self.control_rate_hz, "interpolation_s", self.interpolation_s,
            f"at most one control period, {1 / self.control_rate_hz:g}",
        )  # fmt: skip
        low_s, high_s = 2 / self.control_rate_hz, 5 / self.control_rate_hz
        _require(low_s <= self.watchdog_s <= high_s, "watchdog_s", self.watchdog_s,
                 f"two to five control periods, {low_s:g} to {high_s:g}")  # fmt: skip
        _require(self.max_joint_state_age_s <= self.watchdog_s, "max_joint_state_age_s", self.max_joint_state_age_s,
                 f"at most watchdog_s, {self.watchdog_s:g}")  # fmt: skip
        _require(self.command_rate_hz >= 2 * self.control_rate_hz, "command_rate_hz", self.command_rate_hz,
                 "at least twice control_rate_hz")  # fmt: skip
        for low, high, axis in zip(self.workspace_min_m, self.workspace_max_m, "xyz", strict=True):
            _require(low < high, f"workspace_max_m ({axis})", high, f"above workspace_min_m, {low}")
        _require(
            "front" in self.cameras,
            "cameras",
            sorted(self.cameras),
            "a mapping with at least 'front'",
        )
        for name, camera in self.cameras.items():
            _require(
                camera.encoding in ("rgb8", "bgr8"),
                f"cameras.{name}.encoding",
                camera.encoding,
                "rgb8 or bgr8",
            )
            _require(
                camera.crop == "center_square", f"cameras.{name}.crop", camera.crop, "center_square"
            )
            for field in ("width_px", "height_px", "image_px", "rate_hz"):
                _require(
                    getattr(camera, field) > 0,
                    f"cameras.{name}.{field}",
                    getattr(camera, field),
                    "above 0",
                )
        _require(
            len(self.ready_joints_rad) == 6,
            "ready_joints_rad",
            self.ready_joints_rad,
            "six numbers",
        )
        self._check_ready_pose(model)
        _require(
            0 <= self.ready_gripper <= 1,
            "ready_gripper",
            self.ready_gripper,
            "0 (closed) to 1 (open)",
        )
        _require(self.stop == "hold", "stop", self.stop, "hold")

    def _check_ready_pose(self, model: ArmModel) -> None:
        """Refuse a ready pose outside the joint limits or the workspace box: every episode starts there."""
        margin_rad = self.joint_limit_margin_rad
        limits_rad = zip(model.lower_rad + margin_rad, model.upper_rad - margin_rad, strict=True)
        for name, value, (low, high) in zip(
            model.joint_names, self.ready_joints_rad, limits_rad, strict=True
        ):
            allowed = f"{low:.3f} to {high:.3f} rad, the joint limits with joint_limit_margin_rad"
            _require(low <= value <= high, f"ready_joints_rad ({name})", value, allowed)
        position_m = forward_kinematics(model, np.array(self.ready_joints_rad))[:3, 3]
        box_m = zip(self.workspace_min_m, self.workspace_max_m, strict=True)
        for axis, value, (low, high) in zip("xyz", position_m, box_m, strict=True):
            if not low <= value <= high:
                raise ContractError(
                    f"{axis} of the ready pose (ready_joints_rad) is {value:.4f} m; allowed is "
                    f"{low:g} to {high:g} m, the workspace box from {self.workspace_min_m} to "
                    f"{self.workspace_max_m}; move one of them"
                )

    @property
    def arm(self) -> ArmModel:
        """Kinematic constants of `robot_model`."""
        return get_arm_model(self.robot_model)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the contract's values; independent of comments and key order in the file."""
        return hashlib.sha256(json.dumps(_plain(self), sort_keys=True).encode()).hexdigest()


def load_contract(name_or_path: str | Path) -> RobotContract:
    """Load a contract by name (`wx250s_sim`) or by path; unknown, missing and duplicate keys are errors.

    Raises:
        ContractError: no such file, or the file is wrong; the message has the dotted key.
    """
    path = Path(name_or_path)
    if path.suffix != ".yaml":
        path = config_dir() / "robots" / f"{name_or_path}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in (config_dir() / "robots").glob("*.yaml"))
        raise ContractError(
            f"robot contract {str(name_or_path)!r} does not exist; allowed are {known} or a .yaml path"
        )
    try:
        data = yaml.load(path.read_text(), Loader=StrictLoader)
    except yaml.YAMLError as error:
        raise ContractError(f"{path}: not valid YAML: {error}") from error
    data = _check_keys(data, RobotContract, str(path))
    if not isinstance(data["cameras"], dict):
        raise ContractError(f"{path}: cameras must be a mapping of name to camera")
    data["cameras"] = {
        name: CameraContract(**_check_keys(camera, CameraContract, f"{path}: cameras.{name}"))
        for name, camera in data["cameras"].items()
    }
    for field, length in (("workspace_min_m", 3), ("workspace_max_m", 3), ("ready_joints_rad", 6)):
        values = data[field]
        _require(isinstance(values, list) and len(values) == length and all(map(_is_number, values)),
                 field, values, f"{length} finite numbers")  # fmt: skip
        data[field] = tuple(float(v) for v in values)
    try:
        return RobotContract(**data)
    except (ContractError, TypeError) as error:
        raise ContractError(f"{path}: {error}") from error


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, which YAML itself would let the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping, or raise where a key stands twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _check_keys(data: Any, kind: type, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ContractError(f"{where} is {type(data).__name__}; a mapping is needed")
    allowed = {field.name for field in fields(kind)}
    if unknown := sorted(set(data) - allowed):
        raise ContractError(f"{where} has unknown keys {unknown}; allowed are {sorted(allowed)}")
    if missing := sorted(allowed - set(data)):
        raise ContractError(f"{where} lacks the keys {missing}")
    return dict(data)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require(condition: bool, field: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ContractError(f"{field} is {value!r}; allowed is {allowed}")


def _plain(value: Any) -> Any:
    if isinstance(value, (RobotContract, CameraContract)):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, (int, float)) else value
