# SPDX-License-Identifier: Apache-2.0
"""Facts that more than one file states."""

import re
import subprocess
from pathlib import Path

import pytest

from lapa_core import __version__

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("lapa_core", "setup", "tests", "launch", "config", "urdf", "ros2_ws/src", ".ci")
SKIPPED = {"__pycache__", "checkpoints"}


def test_every_source_file_names_its_licence():
    suffixes = {".py", ".sh", ".yaml", ".xacro"}
    without = []
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in suffixes and path.is_file() and SKIPPED.isdisjoint(path.parts):
                head = path.read_text(encoding="utf-8")[:400]
                # An empty __init__.py has nothing to license.
                if head and "SPDX-License-Identifier: Apache-2.0" not in head:
                    without.append(str(path.relative_to(ROOT)))
    assert not without


@pytest.mark.parametrize(
    "manifest",
    sorted((ROOT / "ros2_ws" / "src").glob("*/package.xml")),
    ids=lambda p: p.parent.name,
)
def test_every_package_has_the_version_of_lapa_core(manifest):
    assert f"<version>{__version__}</version>" in manifest.read_text(encoding="utf-8")
    setup = manifest.parent / "setup.py"
    if setup.is_file():
        assert re.search(r'version="([^"]+)"', setup.read_text(encoding="utf-8"))[1] == __version__


def test_make_alone_explains_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = text.partition(".PHONY: ")[2].partition("\n")[0].split()
    shown = subprocess.run(
        ["make", "-C", str(ROOT)], capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"^  make (\S+) +\S", shown, re.MULTILINE) == targets


def test_the_shell_scripts_parse():
    scripts = [*sorted((ROOT / "setup").glob("*.sh")), ROOT / ".ci" / "run"]
    assert len(scripts) >= 3
    for script in scripts:
        subprocess.run(["sh", "-n", str(script)], check=True)


@pytest.mark.parametrize("found", ["python3.12", "python3"])
def test_a_supported_python_is_found(tmp_path, found):
    """The first on the path whose version is supported; others are passed over."""
    supported, old = "exit 0", "exit 1"
    for name in ("python3", "python3.12"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{supported if name == found else old}\n")
        program.chmod(0o755)
    assert _find_python(tmp_path) == str(tmp_path / found)


def test_no_supported_python_stops_make(tmp_path):
    assert _find_python(tmp_path) == "false"


def _find_python(folder: Path) -> str:
    result = subprocess.run(
        ["/bin/sh", str(ROOT / "setup" / "find_python.sh")],
        env={"PATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()
