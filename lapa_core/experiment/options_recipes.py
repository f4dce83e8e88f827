# SPDX-License-Identifier: Apache-2.0
"""The rows of the table of options: what each one changes, and against what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lapa_core.laq.config import PatchLaqConfig
from lapa_core.laq.presets import LAQ_TRAIN
from lapa_core.laq.train_config import LaqTrainConfig

LABELLED_EPISODES = 50
"""Episodes with actions for the rows with an action head; they are neither trained on otherwise nor probed."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One row."""

    what: str
    """What it is, for the table."""
    recipe: LaqTrainConfig
    """How it is trained; data, steps and seed are the experiment's."""

    @property
    def needs_dinov2(self) -> bool:
        """Whether it needs pretrained DINOv2 weights: random ones would measure nothing."""
        model = self.recipe.model
        return isinstance(model, PatchLaqConfig) and model.target == "dinov2"


def changed(
    base: Option, what: str, model: dict[str, Any] | None = None, **training: Any
) -> Option:
    """Return a row that differs from `base` in some fields of its model and of its training."""
    fitted = replace(base.recipe.model, **(model or {}))
    return Option(what=what, recipe=replace(base.recipe, model=fitted, **training))


DEFAULT = Option(what="keypoint differences, 3 numbers, k-means of 64", recipe=LAQ_TRAIN["sim"])
PAPER = Option(
    what="the paper's layout, corrected, NSVQ, 4 tokens of 8", recipe=LAQ_TRAIN["sim_paper"]
)
_HEAD: dict[str, Any] = {"labelled": Path("simulator"), "labelled_episodes": LABELLED_EPISODES}
_SHARED: dict[str, Any] = {"shift_px": 2, "crop": 0.1, "light": 0.1, "colour": 0.05}


def _options() -> Iterator[tuple[str, Option]]:
    yield "default", DEFAULT
    yield "paper", PAPER
    head = f"with an action head on {LABELLED_EPISODES} labelled episodes"
    yield "default_head", changed(DEFAULT, f"default, {head}", **_HEAD)
    yield "paper_head", changed(PAPER, f"paper, {head}", **_HEAD)
    yield from _quantisers()
    yield from _codebooks()
    for name, base in (("default", DEFAULT), ("paper", PAPER)):
        yield (
            f"{name}_random_gap",
            changed(base, f"{name}, gap drawn from 0.2 to 0.6 s", gap_range_s=(0.2, 0.6)),
        )
        yield f"{name}_augmented", changed(base, f"{name}, shared augmentation", **_SHARED)
    yield "paper_release", changed(PAPER, "the release's network", {"compat": "release"})
    yield "paper_dinov2", changed(PAPER, "paper, target DINOv2 features", {"target": "dinov2"})


def _quantisers() -> Iterator[tuple[str, Option]]:
    says = {
        "nsvq": "NSVQ",
        "vq_ema": "VQ with moving averages",
        "fsq": "finite scalars",
        "none": "continuous, k-means afterwards",
    }
    for base_name, base in (("paper", PAPER), ("default", DEFAULT)):
        for name, words in says.items():
            if name != base.recipe.model.quantiser:
                what = f"{base_name}, {words}"
                yield f"{base_name}_{name}", changed(base, what, {"quantiser": name})


def _codebooks() -> Iterator[tuple[str, Option]]:
    for codes in (16, 256):
        yield f"default_codes{codes}", changed(DEFAULT, f"default, {codes} codes", {"codes": codes})
    for dim in (2, 8):
        yield f"default_dim{dim}", changed(DEFAULT, f"default, {dim} numbers", {"latent_dim": dim})
    yield "paper_codes64", changed(PAPER, "paper, 4 tokens of 64", {"codes": 64})
    one = {"codes": 64, "code_tokens": 1}
    yield "paper_1x64", changed(PAPER, "paper, 1 token of 64", one)
    yield "paper_dim3", changed(PAPER, "paper, 1 token of 64, 3 numbers", {**one, "code_dim": 3})


OPTIONS: dict[str, Option] = dict(_options())
"""Name -> row, the most informative first."""
