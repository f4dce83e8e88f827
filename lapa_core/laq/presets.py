# SPDX-License-Identifier: Apache-2.0
"""Named configurations of latent action models: `sim` gives useful codes on two cores, `debug` runs in seconds.

`paper` is the paper's model and recipe for a GPU; `sim_*` are its options at the simulator's size, each of which
differs from `sim` (conv design) or `sim_paper` (the paper's layout) in what its name says.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lapa_core.laq.config import ConvLaqConfig, PatchLaqConfig
from lapa_core.laq.train_config import LaqTrainConfig

_VIDEOS = Path("data/videos_default")
_SIM = LaqTrainConfig(data=_VIDEOS, out=Path("outputs/laq_sim"))
_SIM_PAPER = LaqTrainConfig(
    data=_VIDEOS,
    out=Path("outputs/laq_sim_paper"),
    model=PatchLaqConfig(
        image_px=32,
        patch_px=4,
        dim=64,
        heads=2,
        spatial_depth=2,
        temporal_depth=2,
        decoder_depth=2,
    ),
    steps=6000,
    batch_size=32,
    learning_rate=1e-3,
)
_PAPER = LaqTrainConfig(
    data=Path("data/videos_index"),
    out=Path("outputs/laq_paper"),
    model=PatchLaqConfig(),
    gap_s=0.6,
    steps=100_000,
    batch_size=64,
    learning_rate=1e-4,
    schedule="constant",
    beta2=0.99,
    weight_decay=0.0,
    device="cuda",
    precision="bf16",
    compile=True,
    save_every=5000,
)
"""Appendix F and the release's script; the release trains in float32, and with this batch in every process."""
_DEBUG = LaqTrainConfig(
    data=_VIDEOS,
    out=Path("outputs/laq_debug"),
    model=ConvLaqConfig(width=8, keypoints=4, codes=8),
    steps=20,
    batch_size=16,
    max_episodes=8,
)
_TINY = {"dim": 32, "heads": 2, "spatial_depth": 1, "temporal_depth": 1, "decoder_depth": 1}


def _with(
    base: LaqTrainConfig, name: str, model: dict[str, Any] | None = None, **training: Any
) -> LaqTrainConfig:
    """Return a preset of another name that differs in some fields of its model and of its training."""
    fitted = replace(base.model, **(model or {}))
    return replace(base, out=Path(f"outputs/laq_{name}"), model=fitted, **training)


_GAP: dict[str, Any] = {"gap_range_s": (0.2, 0.6)}
_SHARED: dict[str, Any] = {"shift_px": 2, "crop": 0.1, "light": 0.1, "colour": 0.05}
_LABELS: dict[str, Any] = {"labelled": Path("data/recorded450"), "labelled_episodes": 50}

LAQ_TRAIN: dict[str, LaqTrainConfig] = {
    "sim": _SIM,
    "sim_gap": _with(_SIM, "sim_gap", **_GAP),
    "sim_augmented": _with(_SIM, "sim_augmented", **_SHARED),
    "sim_few_labels": _with(_SIM, "sim_few_labels", **_LABELS),
    "sim_nsvq": _with(_SIM, "sim_nsvq", {"quantiser": "nsvq"}),
    "sim_vq_ema": _with(_SIM, "sim_vq_ema", {"quantiser": "vq_ema"}),
    "sim_fsq": _with(_SIM, "sim_fsq", {"quantiser": "fsq"}),
    "sim_paper": _SIM_PAPER,
    "sim_paper_gap": _with(_SIM_PAPER, "sim_paper_gap", **_GAP),
    "sim_paper_augmented": _with(_SIM_PAPER, "sim_paper_augmented", **_SHARED),
    "sim_paper_few_labels": _with(_SIM_PAPER, "sim_paper_few_labels", **_LABELS),
    "sim_paper_vq_ema": _with(_SIM_PAPER, "sim_paper_vq_ema", {"quantiser": "vq_ema"}),
    "sim_paper_fsq": _with(_SIM_PAPER, "sim_paper_fsq", {"quantiser": "fsq"}),
    "sim_paper_continuous": _with(_SIM_PAPER, "sim_paper_continuous", {"quantiser": "none"}),
    "sim_paper_dinov2": _with(_SIM_PAPER, "sim_paper_dinov2", {"target": "dinov2"}),
    "sim_paper_release": _with(_SIM_PAPER, "sim_paper_release", {"compat": "release"}),
    "paper": _PAPER,
    "paper_release": _with(_PAPER, "paper_release", {"compat": "release"}),
    "debug": _DEBUG,
    "debug_paper": replace(
        _with(_SIM_PAPER, "debug_paper", {**_TINY, "code_dim": 8}),
        learning_rate=2e-3,
        steps=20,
        batch_size=16,
        max_episodes=8,
    ),
}
"""`lapa laq train <name>`; `*_paper` is the paper's layout."""

LAQ_TRAIN_NOTES: dict[str, str] = {
    "sim": "the design of the README's figures: 32 px, three numbers, 64 clusters; minutes on two cores",
    "sim_gap": "sim, with a random gap of 0.2 to 0.6 s",
    "sim_augmented": "sim, with shared shift, crop, light and colour",
    "sim_few_labels": "sim, with an action head on 50 labelled episodes",
    "sim_nsvq": "sim, quantised in training by noise substitution",
    "sim_vq_ema": "sim, quantised in training by moving averages",
    "sim_fsq": "sim, quantised in training by rounded scalars",
    "sim_paper": "the paper's layout at 32 px and width 64",
    "sim_paper_gap": "sim_paper, with a random gap of 0.2 to 0.6 s",
    "sim_paper_augmented": "sim_paper, with shared shift, crop, light and colour",
    "sim_paper_few_labels": "sim_paper, with an action head on 50 labelled episodes",
    "sim_paper_vq_ema": "sim_paper, quantised by moving averages",
    "sim_paper_fsq": "sim_paper, quantised by rounded scalars",
    "sim_paper_continuous": "sim_paper, continuous in training, k-means afterwards",
    "sim_paper_dinov2": "sim_paper, predicting features of a frozen DINOv2",
    "sim_paper_release": "sim_paper, the released network with its quirks",
    "paper": "the paper's model and recipe (344 M parameters, 256 px, 100,000 steps) for a GPU",
    "paper_release": "paper, the released network with its quirks",
    "debug": "sim, tiny: seconds",
    "debug_paper": "sim_paper, tiny: seconds",
}
"""What `lapa laq train --help` says of each."""
