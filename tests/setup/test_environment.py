# SPDX-License-Identifier: Apache-2.0
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from setup import environment
from setup.underlay import Underlay

ROOT = Path(__file__).resolve().parents[2]
WHEELS = Underlay(distribution="jazzy", sourced=False)
JAZZY = Underlay(distribution="jazzy", sourced=True)


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    path = tmp_path_factory.mktemp("clone") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True)
    (path / "bin" / "pip").write_text(f"#!{path}/bin/python3\n")
    return path


def test_an_environment_fits_its_own_place_and_kind(venv, tmp_path):
    assert environment._fits(venv, WHEELS)
    assert not environment._fits(venv, JAZZY), "does not see the system's packages"
    assert not environment._fits(tmp_path / "absent", WHEELS)
    moved = shutil.copytree(venv, tmp_path / "moved", symlinks=True)
    assert not environment._fits(moved, WHEELS)


def test_an_environment_of_another_python_does_not_fit(venv, tmp_path):
    other = tmp_path / ".venv"
    shutil.copytree(venv, other, symlinks=True)
    (other / "bin" / "pip").write_text(f"#!{other}/bin/python3\n")
    assert environment._fits(other, WHEELS)
    configuration = other / "pyvenv.cfg"
    present = platform.python_version()
    updated = f"{environment._version()}.99"
    configuration.write_text(configuration.read_text().replace(present, updated))
    assert environment._fits(other, WHEELS), "an update of the same Python"
    configuration.write_text(configuration.read_text().replace(updated, "3.9.2"))
    assert not environment._fits(other, WHEELS)


def test_a_sourced_ros_gets_no_wheels_and_keeps_its_own_template_engine():
    names = [path.name for path in environment._groups(ROOT, JAZZY)]
    assert names == ["core.in", "dev.in"]
    assert "empy==" in environment._constraints(ROOT, WHEELS)
    assert "empy==" not in environment._constraints(ROOT, JAZZY)


@pytest.fixture
def clone(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "setup", tmp_path / "setup", ignore=ignored)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "installs", "rebuilds"),
    [("numpy==", True, True), ("ros-rclpy==", True, True), ("pytest==", True, False)],
)
def test_a_new_version_is_installed_and_rebuilds_what_holds_it(clone, changed, installs, rebuilds):
    before = environment._requirements_key(clone, WHEELS), environment.build_key(clone, WHEELS)
    lock = clone / "setup" / "requirements" / "lock.txt"
    lock.write_text(lock.read_text().replace(f"\n{changed}", f"\n{changed}9"))
    after = environment._requirements_key(clone, WHEELS), environment.build_key(clone, WHEELS)
    assert (after[0] != before[0], after[1] != before[1]) == (installs, rebuilds)


def test_another_underlay_is_another_environment_and_another_build(clone):
    assert environment._requirements_key(clone, WHEELS) != environment._requirements_key(
        clone, JAZZY
    )
    assert environment.build_key(clone, WHEELS) != environment.build_key(clone, JAZZY)
