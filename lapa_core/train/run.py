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

Where several processes train together, all of them call everything here and only the leading one writes. A state holds
whole tensors, so a run that FSDP2 divided among eight processes may go on in one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lapa_core.checkpoint import load_checkpoint, save_checkpoint
from lapa_core.errors import CheckpointError
from lapa_core.train.parallel import divided_like, whole

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
        tensors, config = load_checkpoint(self.out / STATE_DIR)
        if config["settings"] != self.settings:
            changed = sorted(
                k for k in self.settings if config["settings"].get(k) != self.settings[k]
            )
            raise CheckpointError(
                f"{self.out} holds a run with other settings ({', '.join(changed) or 'fewer keys'} differ); "
                "resume with the same ones or choose another --out"
            )
        like = model.state_dict()
        weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
        model.load_state_dict(
            {k: divided_like(v, like[k]) if k in like else v for k, v in weights.items()}
        )
        for name, buffer in _unsaved_buffers(model).items():
            if (kept := tensors.get(f"buffer.{name}")) is not None:
                buffer.copy_(kept)
        _load_optimizer(model, optimizer, tensors)
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
            tensors = {f"model.{k}": whole(v) for k, v in model.state_dict().items()}
            tensors.update({f"buffer.{k}": whole(v) for k, v in _unsaved_buffers(model).items()})
            tensors.update(_optimizer_tensors(model, optimizer))
            if not self.leads:
                return
            save_checkpoint(
                self.out / STATE_DIR,
                tensors,
                {"kind": "state", "step": done, "settings": self.settings},
            )

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


def _unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes but the state dict leaves out: the released network's has no room for its counts."""
    in_state = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in in_state}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{key}.{name}": whole(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _load_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, field, name = key.split(".", 2)
            parameter = parameters[name]
            if field == "step":  # fused kernels count on the device, the others on the CPU
                fused = optimizer.defaults.get("fused")
                kept = value.to(parameter.device if fused else "cpu").clone()
            else:
                kept = divided_like(value, parameter.detach())
            optimizer.state[parameter][field] = kept
