# SPDX-License-Identifier: Apache-2.0
"""Data sets are read on machines that have neither torch nor ROS."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"lapa_core.data.{name}")
print(sorted({"torch", "rclpy", "tensorflow", "lerobot", "mujoco"} & set(sys.modules)))
"""


def test_no_module_imports_torch_or_ros():
    names = sorted(path.stem for path in (REPOSITORY / "lapa_core/data").glob("[a-z]*.py"))
    assert len(names) > 15
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]", done.stderr
