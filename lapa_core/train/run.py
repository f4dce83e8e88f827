# SPDX-License-Identifier: Apache-2.0
"""One resumable training run in one directory: state, metrics (JSON lines and TensorBoard), progress bar.

    run = TrainingRun(out, settings)
    first_step = run.restore(model, optimizer)
    for step in run.steps(first_step, total_steps):
        seed_step(seed, step)
        ...
        run.log(step, {"loss": loss.item()})
        run.save(step, model, optimizer)

All randomness of a step is a function of (seed, step) (`lapa_core.train.sampling`), so weights, optimizer and
step are the whole state, and the losses after a resume equal those of the straight run bit for bit.

Where several processes train together, all of them call everything here; only the leading one writes, except that under
FSDP2 each writes its part of the state. A run that FSDP2 divided among eight processes may go on in one, or in four.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from lapa_core.checkpoint import load_config
from lapa_core.errors import CheckpointError
from lapa_core.train.state import KIND, load_state, save_state

STATE_DIR = "state"
METRICS_FILE = "metrics.jsonl"


class TrainingRun:
    """Directory of one run: `state/` to resume from, `metrics.jsonl`, TensorBoard event files."""

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        *,
        save_every: int = 500,
        log_every: int = 50,
        progress: bool = True,
        tensorboard: bool = True,
        leads: bool = True,
    ):
        """Open the directory.

        Args:
            out: run directory, created when missing.
            settings: everything that shapes the losses (configuration, data identity); a resume with others
                is refused.
            save_every: steps between two saved states; 0 saves none.
            log_every: steps between two metric rows.
            progress: show a bar on standard error.
            tensorboard: write event files beside the metrics.
            leads: whether this process writes; False for all but one of those that train together.
        """
        self.out = Path(out)
        self.settings = json.loads(json.dumps(settings, default=str))
        self.save_every = save_every
        self.log_every = log_every
        self.progress = progress and leads
        self.leads = leads
        self.history: list[tuple[int, dict[str, float]]] = []
        if leads:
            self.out.mkdir(parents=True, exist_ok=True)
        self._bar: tqdm[int] | None = None
        self._writer = None
        if tensorboard and leads:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.out))
        self._last_step = 0

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest saved state, if any, and return the first step to run.

        Raises:
            CheckpointError: the state belongs to a run with other settings, or is damaged.
        """
        if not (self.out / STATE_DIR).exists():
            if self.leads:
                (self.out / METRICS_FILE).unlink(missing_ok=True)
            return 0
        config = load_config(self.out / STATE_DIR, KIND)
        if config["settings"] != self.settings:
            changed = sorted(
                k for k in self.settings if config["settings"].get(k) != self.settings[k]
            )
            raise CheckpointError(
                f"{self.out} holds a run with other settings ({', '.join(changed) or 'fewer keys'} differ); "
                "resume with the same ones or choose another --out"
            )
        load_state(self.out / STATE_DIR, model, optimizer)
        step = int(config["step"])
        if self.leads:
            self._drop_rows_from(step)
        return step

    def steps(self, first: int, total: int) -> Iterator[int]:
        """Yield the steps still to run, under a progress bar."""
        self._bar = tqdm(
            range(first, total), initial=first, total=total, disable=not self.progress, leave=False
        )
        self._last_step = total - 1
        with self._bar:
            yield from self._bar

    def due(self, step: int) -> bool:
        """Return whether a step's metrics are recorded: every `log_every` steps, and at the last one."""
        return step % self.log_every == 0 or step == self._last_step

    def log(self, step: int, metrics: dict[str, float], *, force: bool = False) -> None:
        """Record a row of metrics where it is due, or forced."""
        if not (force or self.due(step)):
            return
        self.history.append((step, metrics))
        if not self.leads:
            return
        with (self.out / METRICS_FILE).open("a") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 2), **metrics}) + "\n")
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.4g}" for k, v in metrics.items()}, refresh=False)

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Save the state after a step, when it is due."""
        done = step + 1
        if self.save_every and (done % self.save_every == 0 or step == self._last_step):
            config = {"step": done, "settings": self.settings}
            save_state(self.out / STATE_DIR, model, optimizer, config, leads=self.leads)

    def close(self) -> None:
        """Flush and close the event files."""
        if self._writer is not None:
            self._writer.close()

    def _drop_rows_from(self, step: int) -> None:
        """Drop metric rows of steps that will run again."""
        path = self.out / METRICS_FILE
        if path.exists():
            rows = [
                line for line in path.read_text().splitlines() if json.loads(line)["step"] < step
            ]
            path.write_text("".join(row + "\n" for row in rows))
