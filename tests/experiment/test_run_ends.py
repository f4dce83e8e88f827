# SPDX-License-Identifier: Apache-2.0
"""A run that is killed takes its worker processes with it."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lapa_core.experiment.cells import Cell
from lapa_core.experiment.run import Suite, run_all

REPOSITORY = Path(__file__).resolve().parents[2]


def stay(config, cell):
    (config.out / "pid").write_text(str(os.getpid()))
    time.sleep(60)
    return {}


def one_cell(config):
    yield Cell("stay", stay)


def key_of(config, cell):
    return {"cell": cell.name}


def run(out):
    run_all(SimpleNamespace(out=Path(out), only="", workers=1), Suite(one_cell, key_of))


def until(seconds, true):
    deadline_s = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return true()


@pytest.mark.slow
def test_workers_end_with_a_killed_run(tmp_path):
    program = "import sys; from tests.experiment.test_run_ends import run; run(sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY) as parent:
        pid = tmp_path / "pid"
        assert until(60, lambda: pid.is_file() and pid.read_text())
        parent.kill()
    assert until(10, lambda: not Path(f"/proc/{pid.read_text()}").exists())
