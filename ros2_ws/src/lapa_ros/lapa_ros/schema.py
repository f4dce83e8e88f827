# SPDX-License-Identifier: Apache-2.0
"""Message classes and `ros2msg` schema texts by type name, for recordings that explain themselves."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

from lapa_core.errors import SetupError

_PRIMITIVES = {"bool", "byte", "char", "string", "wstring", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_FIELD = re.compile(r"^([A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+\w+")
_SEPARATOR = "=" * 80


def message_class(type_name: str) -> Any:
    """Return the class of a type such as `sensor_msgs/msg/JointState`.

    Raises:
        SetupError: it is not installed.
    """
    package, _, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise SetupError(
            f"message type {type_name} is not installed; source the workspace that has it"
        ) from error


def schema_text(type_name: str) -> str:
    """Return the definition of a type, followed by those of every type in it, as MCAP's `ros2msg` wants them."""
    texts = {type_name: _definition(type_name)}
    pending = [type_name]
    while pending:
        current = pending.pop()
        for inner in _inner_types(texts[current], current.split("/")[0]):
            if inner not in texts:
                texts[inner] = _definition(inner)
                pending.append(inner)
    parts = [texts.pop(type_name)]
    for name, text in texts.items():
        package, _, message = name.split("/")
        parts.append(f"{_SEPARATOR}\nMSG: {package}/{message}\n{text}")
    return "\n".join(parts)


def _definition(type_name: str) -> str:
    package, _, name = type_name.split("/")
    try:
        path = Path(get_package_share_directory(package), "msg", f"{name}.msg")
        return path.read_text(encoding="utf-8")
    except (PackageNotFoundError, FileNotFoundError) as error:
        raise SetupError(f"the definition of {type_name} is not installed: {error}") from error


def _inner_types(text: str, package: str) -> list[str]:
    found = []
    for line in text.splitlines():
        match = _FIELD.match(line.strip())
        if match and match.group(1) not in _PRIMITIVES:
            parts = match.group(1).split("/")
            found.append(f"{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}")
    return found
