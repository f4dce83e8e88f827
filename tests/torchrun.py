# SPDX-License-Identifier: Apache-2.0
"""Starting programs in several processes, and reading what their runs left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lapa_core.train.run import TrainingRun

REPOSITORY = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-5
"""Relative; sums over a batch and over two halves of it round differently, and more so with each step."""


def torchrun(processes: int, *arguments: str | Path, cwd: Path) -> str:
    """Run a program in several processes and return what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def metrics(run_dir: Path) -> list[dict[str, float]]:
    """Return a run's rows without their times."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows if "loss" in row]


class Interrupted(Exception):
    """Stands for the end of a process after the state of step 2 was saved."""


def until_half(train: Callable[[], object]) -> None:
    """Train until the state of step 2 is saved."""
    save = TrainingRun.save

    def save_then_die(self: TrainingRun, step: int, *rest: object) -> None:
        save(self, step, *rest)  # type: ignore[arg-type]
        if step == 1:
            raise Interrupted

    TrainingRun.save = save_then_die  # type: ignore[method-assign]
    try:
        train()
    except Interrupted:
        TrainingRun.save = save  # type: ignore[method-assign]
