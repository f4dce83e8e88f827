# SPDX-License-Identifier: Apache-2.0
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
    configuration.write_text(configuration.read_text().replace(environment._version(), "3.9.2"))
    assert not environment._fits(other, WHEELS)


def test_a_sourced_ros_gets_no_wheels_and_keeps_its_own_template_engine():
    names = [path.name for path in environment._groups(ROOT, JAZZY)]
    assert names == ["core.in", "dev.in"]
    assert "empy==" in environment._constraints(ROOT, WHEELS)
    assert "empy==" not in environment._constraints(ROOT, JAZZY)


def test_the_key_follows_the_lock_and_the_underlay(tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "setup", clone / "setup", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", clone)
    first = environment._key(clone, WHEELS)
    assert environment._key(clone, WHEELS) == first
    assert environment._key(clone, JAZZY) != first
    lock = clone / "setup" / "requirements" / "lock.txt"
    lock.write_text(lock.read_text().replace("numpy==", "numpy==9"))
    assert environment._key(clone, WHEELS) != first
