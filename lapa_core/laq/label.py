# SPDX-License-Identifier: Apache-2.0
"""`lapa laq label`: the codes of every frame pair of a data set."""

from __future__ import annotations

from pathlib import Path

from lapa_core.data.store import FrameStore
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.label_config import LaqLabelConfig
from lapa_core.laq.labels import LatentLabels
from lapa_core.laq.train import frames_only
from lapa_core.laq.usage import code_usage, warn_if_collapsed

__all__ = ["LaqLabelConfig", "label", "main"]


def label(config: LaqLabelConfig, store: FrameStore | None = None) -> Path:
    """Write the labels and return their path; `store` replaces the data set on disk."""
    model, facts = load_laq(config.checkpoint, config.device)
    store = frames_only(store or FrameStore.load(config.data, model.image_px), config.max_episodes)
    pairs_P2 = store.valid_pairs(facts["gap_s"])
    codes_PK = model.encode(store.frames[pairs_P2[:, 0]], store.frames[pairs_P2[:, 1]]).codes_BK
    warn_if_collapsed(code_usage(codes_PK, model.codes))
    made_by = facts["weights_sha256"]
    path = (
        config.out or config.data.with_name(f"{config.data.name}.latents") / f"{made_by[:12]}.npz"
    )
    labels = LatentLabels(
        pairs_P2=pairs_P2,
        codes_PK=codes_PK,
        centres_ND=model.centres(),
        gap_s=facts["gap_s"],
        checkpoint_hash=made_by,
    )
    labels.save(path)
    return path


def main(config: LaqLabelConfig) -> None:
    """Label, and say where the labels are."""
    print(f"latent labels: {label(config)}")
