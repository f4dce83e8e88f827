# SPDX-License-Identifier: Apache-2.0
"""`make setup`: system packages, `.venv` from the lock, the ROS workspace. Done steps are skipped."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from lapa_core.errors import SetupError
from setup import environment, system, underlay, workspace

ROOT = Path(__file__).resolve().parent.parent


def run() -> None:
    """Do every step that is not done yet.

    Raises:
        SetupError: a step failed.
    """
    system.ensure(system.needs())
    below = underlay.detect(os.environ)
    underlay.check_importable(sys.executable, below)
    environ = underlay.build_environment(os.environ, below, ROOT / ".venv")
    # Two calls of make at once: the second waits, then finds everything done.
    folder = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        environment.ensure(ROOT, below, environ)
        workspace.ensure(ROOT, environment.build_key(ROOT, below), environ)
    finally:
        os.close(folder)


def main() -> None:
    """Run and turn an expected failure into one message and a non-zero exit status."""
    try:
        run()
    except SetupError as error:
        sys.exit(f"set-up: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"set-up: this command failed: {error.cmd}")


if __name__ == "__main__":
    main()
