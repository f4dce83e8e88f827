# SPDX-License-Identifier: Apache-2.0
"""The rows of the table of options: what each one changes, and against what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lapa_core.laq.config import PatchLaqConfig
from lapa_core.laq.presets import LAQ_TRAIN
from lapa_core.laq.train_config import LaqTrainConfig


@dataclass(frozen=True, kw_only=True)
class Option:
    """One row."""

    what: str
    """What it is, for the table."""
    recipe: LaqTrainConfig
    """How it is trained; data, steps and seed are the experiment's."""


def _with(base: Option, what: str, model: dict[str, Any] | None = None, **training: Any) -> Option:
    recipe = replace(base.recipe, model=replace(base.recipe.model, **(model or {})), **training)
    return Option(what=what, recipe=recipe)


DEFAULT = Option(what="keypoint differences, 3 numbers, k-means of 64", recipe=LAQ_TRAIN["sim"])
PAPER = Option(what="the paper's layout, corrected, NSVQ 4 x 8", recipe=LAQ_TRAIN["sim_paper"])


def _options() -> Iterator[tuple[str, Option]]:
    yield "default", DEFAULT
    yield "paper", PAPER
    for codes in (16, 32, 128, 256):
        yield f"default_codes{codes}", _with(DEFAULT, f"default, {codes} codes", {"codes": codes})
    for dim in (2, 4, 8):
        yield f"default_width{dim}", _with(DEFAULT, f"default, {dim} numbers", {"latent_dim": dim})
    for gap in (0.4, 0.6):
        yield f"default_gap{gap:g}", _with(DEFAULT, f"default, pairs {gap:g} s apart", gap_s=gap)
    yield "default_shift", _with(DEFAULT, "default, pairs shifted by up to 3 px", shift_px=3)


OPTIONS: dict[str, Option] = dict(_options())
"""Name -> row, the most informative first."""


def needs_dinov2(option: Option) -> bool:
    """Return whether a row needs pretrained DINOv2 weights: random ones would measure nothing."""
    model = option.recipe.model
    return isinstance(model, PatchLaqConfig) and model.target == "dinov2"
