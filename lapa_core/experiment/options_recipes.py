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
    times: float = 1.0
    """Its share of the experiment's time or steps; only rows that say so have another than 1."""
    price: str = ""
    """Option whose steps cost the same, so that it is not measured again; empty measures its own."""

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
    return replace(base, what=what, recipe=replace(base.recipe, model=fitted, **training))


def priced_like(name: str, option: Option) -> Option:
    """Return a row whose steps cost as much as those of the option of that name."""
    return replace(option, price=name)


DEFAULT = Option(
    what="keypoint differences, 3 numbers, k-means of 64",
    recipe=LAQ_TRAIN["sim"],
)
PAPER = Option(
    what="the paper's layout, corrected: 8 x 8 patches, NSVQ, 4 tokens of 8",
    recipe=LAQ_TRAIN["sim_paper"],
)
PATCH8 = changed(
    PAPER,
    "paper with 4 x 4 patches, batches of 64, learning rate 2e-3",
    {"patch_px": 8},
    batch_size=64,
    learning_rate=2e-3,
)
_HEAD: dict[str, Any] = {"labelled": Path("simulator"), "labelled_episodes": LABELLED_EPISODES}
_SHARED: dict[str, Any] = {"shift_px": 2, "crop": 0.1, "light": 0.1, "colour": 0.05}
_QUANTISERS = {
    "nsvq": "NSVQ",
    "vq_ema": "VQ with moving averages",
    "fsq": "finite scalars",
    "none": "continuous, k-means afterwards",
}


def _options() -> Iterator[tuple[str, Option]]:
    yield "default", DEFAULT
    yield "paper", PAPER
    yield "patch8", PATCH8
    yield from _training("default", DEFAULT)
    yield from _training("patch8", PATCH8)
    yield from _quantisers("default", DEFAULT)
    yield from _quantisers("patch8", PATCH8)
    yield from _codebooks()
    long = priced_like("patch8", replace(PATCH8, what="patch8, ten times the time", times=10.0))
    yield "patch8_x10", long
    yield "paper_release", changed(PAPER, "the release's network", {"compat": "release"})
    yield "paper_dinov2", changed(PAPER, "paper, target DINOv2 features", {"target": "dinov2"})


def _training(name: str, base: Option) -> Iterator[tuple[str, Option]]:
    head = f"{name}, an action head on {LABELLED_EPISODES} labelled episodes"
    yield f"{name}_head", changed(base, head, **_HEAD)
    gap = changed(base, f"{name}, gap drawn from 0.2 to 0.6 s", gap_range_s=(0.2, 0.6))
    yield f"{name}_random_gap", priced_like(name, gap)
    yield f"{name}_augmented", changed(base, f"{name}, shared augmentation", **_SHARED)


def _quantisers(base_name: str, base: Option) -> Iterator[tuple[str, Option]]:
    for name, words in _QUANTISERS.items():
        if name != base.recipe.model.quantiser:
            option = changed(base, f"{base_name}, {words}", {"quantiser": name})
            yield f"{base_name}_{name}", priced_like(base_name, option)


def _codebooks() -> Iterator[tuple[str, Option]]:
    for codes in (16, 256):
        option = changed(DEFAULT, f"default, {codes} codes", {"codes": codes})
        yield f"default_codes{codes}", priced_like("default", option)
    for dim in (2, 8):
        option = changed(DEFAULT, f"default, {dim} numbers", {"latent_dim": dim})
        yield f"default_dim{dim}", priced_like("default", option)
    wider = {"codes": 256, "latent_dim": 8}
    option = changed(DEFAULT, "default, 8 numbers, 256 codes", wider)
    yield "default_dim8_codes256", priced_like("default", option)
    one = {"codes": 64, "code_tokens": 1}
    yield "patch8_1x64", priced_like("patch8", changed(PATCH8, "patch8, 1 token of 64", one))
    few = changed(PATCH8, "patch8, 1 token of 64, 3 numbers", {**one, "code_dim": 3})
    yield "patch8_1x64_dim3", priced_like("patch8", few)


OPTIONS: dict[str, Option] = dict(_options())
"""Name -> row, the most informative first."""
