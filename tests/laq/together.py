# SPDX-License-Identifier: Apache-2.0
"""What `test_train_together.py` runs in every process of torchrun: `together.py FOLDER`; not a test itself.

One launch does all cases, because starting processes takes longer than the steps. Each case leaves its run directory.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from lapa_core.laq.config import ConvLaqConfig
from lapa_core.laq.train import train
from lapa_core.laq.train_config import LaqTrainConfig
from lapa_core.train.parallel import leave
from tests.torchrun import until_half
from tests.toy import TOY_PATCH, toy_store

BASE = LaqTrainConfig(
    data=Path("toy"), model=TOY_PATCH, gap_s=0.4, steps=4, batch_size=8, labelled_batch_size=4,
    save_every=2, log_every=1, progress=False,
)  # fmt: skip
HEAD = {"labelled": Path("toy"), "shift_px": 2, "light": 0.1, "gap_range_s": (0.2, 0.8)}
CASES: dict[str, LaqTrainConfig] = {
    "ddp": replace(BASE, **HEAD),
    "fsdp2": replace(BASE, parallel="fsdp2", **HEAD),
    "conv": replace(BASE, model=ConvLaqConfig(width=8, codes=4)),
    "vq_ema": replace(BASE, model=replace(TOY_PATCH, quantiser="vq_ema")),
}
"""Name -> recipe; also trained in one process by the test."""


def run_case(name: str, out: Path) -> None:
    """Train one case."""
    recipe = replace(CASES[name], out=out)
    train(recipe, toy_store(), toy_store(seed=1) if recipe.labelled else None)


def run_half(name: str, out: Path) -> None:
    """Train until the state of step 2 is saved."""
    until_half(lambda: run_case(name, out))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for case in CASES:
        run_case(case, folder / case)
    for case in ("ddp", "fsdp2"):
        run_half(case, folder / f"{case}_resumed")
        run_case(case, folder / f"{case}_resumed")
    run_half("fsdp2", folder / "half")
    leave()
