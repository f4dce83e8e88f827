# SPDX-License-Identifier: Apache-2.0
"""Early stopping: the weights of the step that did best on held-out data, kept on disk so that a resume sees them."""

from __future__ import annotations

import math
from pathlib import Path

from torch import nn

from lapa_core.checkpoint import load_checkpoint, load_config, save_checkpoint


class BestWeights:
    """Keeps the weights with the lowest held-out loss in one directory."""

    def __init__(self, directory: Path):
        """Continue with what a directory holds, if anything."""
        self.directory = directory
        self.loss = load_config(directory, "best")["loss"] if directory.exists() else math.inf

    def offer(self, model: nn.Module, loss: float, step: int) -> bool:
        """Keep the weights if they beat all before; return whether they did."""
        if loss >= self.loss:
            return False
        self.loss = loss
        save_checkpoint(
            self.directory, dict(model.state_dict()), {"kind": "best", "loss": loss, "step": step}
        )
        return True

    def take(self, model: nn.Module) -> None:
        """Load the best weights, if any were offered."""
        if self.directory.exists():
            model.load_state_dict(load_checkpoint(self.directory, "best")[0], strict=True)
