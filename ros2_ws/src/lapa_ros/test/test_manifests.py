# SPDX-License-Identifier: Apache-2.0
"""Manifests, imports and versions agree."""

import ast
import re
import sys
from pathlib import Path

import lapa_ros
import pytest
from catkin_pkg.package import parse_package

import lapa_core

SOURCES = Path(lapa_ros.__file__).resolve().parent
PACKAGE = SOURCES.parent
WORKSPACE = PACKAGE.parent
IN_REPOSITORY = (WORKSPACE / "lapa_msgs" / "package.xml").is_file()
REASON = "only in the source tree"

# What rosdep has under another name; what pip brings is named in setup/requirements.
ROSDEP = {"PIL": "python3-pil"} | {
    name: f"python3-{name}" for name in ("numpy", "scipy", "tqdm", "yaml")
}
FROM_PIP = {"av", "mcap", "pyspacemouse", "rosbags", "torch"}
# Imported by a name that a parameter gives; the real driver's package is never a dependency.
BY_NAME = {"lapa_xs_msgs"}


def imported_packages():
    names = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"lapa_ros"}


@pytest.mark.skipif(not IN_REPOSITORY, reason=REASON)
def test_depends_equal_imports():
    manifest = parse_package(str(PACKAGE / "package.xml"))
    declared = {dependency.name for dependency in manifest.exec_depends}
    wanted = {ROSDEP.get(name, name) for name in imported_packages() - FROM_PIP}
    assert declared == wanted | BY_NAME


@pytest.mark.skipif(not IN_REPOSITORY, reason=REASON)
@pytest.mark.parametrize(
    "name", ["lapa_bringup", "lapa_core", "lapa_msgs", "lapa_ros", "lapa_xs_msgs"]
)
def test_manifests_are_valid_and_carry_the_version_of_lapa_core(name):
    manifest = parse_package(str(WORKSPACE / name / "package.xml"))
    assert manifest.version == lapa_core.__version__
    assert manifest.get_build_type() in ("ament_cmake", "ament_python")
    setup = WORKSPACE / name / "setup.py"
    if setup.is_file():
        assert f'version="{lapa_core.__version__}"' in setup.read_text()


@pytest.mark.skipif(not IN_REPOSITORY, reason=REASON)
def test_every_interface_field_is_commented():
    for path in [
        *(WORKSPACE / "lapa_msgs").rglob("*.*"),
        *(WORKSPACE / "lapa_xs_msgs").rglob("*.*"),
    ]:
        if path.suffix not in (".msg", ".srv", ".action"):
            continue
        above = ""
        for line in path.read_text().splitlines():
            if re.match(r"^[a-z]", line):
                assert above.startswith("#") or re.match(r"^[a-z]", above), f"{path.name}: {line}"
            above = line
