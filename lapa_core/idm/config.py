# SPDX-License-Identifier: Apache-2.0
"""Configuration of an inverse dynamics model and of its training. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from lapa_core.errors import ContractError
from lapa_core.vla.bounds import at_least


@dataclass(frozen=True, kw_only=True)
class IdmModelConfig:
    """Sizes of the model."""

    image_px: int = 32
    """Side of the square frames [px]; even."""
    width: int = 32
    """Channels of the convolutions; a multiple of 4."""
    keypoints: int = 32
    """Maps whose expected positions are read off each frame; a multiple of 4."""
    hidden: int = 128
    """Width of the layer between the keypoints' differences and the action."""

    def __post_init__(self) -> None:
        at_least(self, image_px=8, width=4, keypoints=4, hidden=1)
        for name, factor in {"image_px": 2, "width": 4, "keypoints": 4}.items():
            if (value := getattr(self, name)) % factor:
                raise ContractError(f"{name} is {value}; it must be a multiple of {factor}")


@dataclass(frozen=True, kw_only=True)
class IdmTrainConfig:
    """Learn from labelled episodes which action lies between two frames that are a control period apart."""

    data: Path
    """Data set with actions."""
    out: Path = Path("outputs/idm")
    """Run directory; the finished model is in its `checkpoint/`. A run that was stopped goes on where it was saved."""
    model: IdmModelConfig = field(default_factory=IdmModelConfig)
    """Sizes."""
    episodes: int = 0
    """Labelled episodes to use, drawn with `subset_seed` as in `lapa vla finetune`; 0 uses all."""
    subset_seed: int = 0
    """Seed of the draw: a smaller draw is part of a larger one with the same seed."""
    test_share: float = 0.1
    """Share of these episodes, the last of them, that is kept from the training to measure what the model is worth;
    0 trains on all and measures nothing."""
    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 64
    """Pairs per step."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW (paper: 1e-4, for a ResNet18)."""
    weight_decay: float = 0.01
    """AdamW weight decay."""
    shift_px: int = 3
    """Shift both frames of a pair together, by up to this many pixels; 0 is off."""
    light: float = 0.15
    """Change contrast and brightness of both frames of a pair together, by up to this share; 0 is off."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    device: str = "cpu"
    """Torch device."""
    contract: str = ""
    """Robot contract of the actions, a name or a path; "" takes the data set's own, wx250s_sim if it names none."""
    save_every: int = 500
    """Steps between resumable states; 0 saves none."""
    log_every: int = 50
    """Steps between rows of metrics."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(
            self, episodes=0, steps=1, batch_size=2, weight_decay=0, shift_px=0, light=0, save_every=0, log_every=1
        )  # fmt: skip
        if not 0.0 <= self.test_share < 1.0:
            raise ContractError(f"test_share is {self.test_share}; allowed is 0 to below 1")
        if not 0.0 < self.learning_rate < math.inf:
            raise ContractError(
                f"learning_rate is {self.learning_rate}; it must be a positive number"
            )


IDM_TRAIN = {
    "sim": IdmTrainConfig(data=Path("data/recorded450"), out=Path("outputs/idm_sim")),
    "debug": IdmTrainConfig(
        data=Path("data/recorded450"),
        out=Path("outputs/idm_debug"),
        model=IdmModelConfig(width=8, keypoints=4, hidden=16),
        episodes=8,
        steps=20,
        batch_size=16,
    ),
}
"""`lapa idm train <name>`."""

IDM_TRAIN_NOTES = {
    "sim": "the simulator's arm at 32 px, from all recorded episodes; a minute or two on one core",
    "debug": "the same in seconds",
}
"""One line for each."""
