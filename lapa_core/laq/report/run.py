# SPDX-License-Identifier: Apache-2.0
"""`lapa laq report`: from a checkpoint and a data set to report.html and report.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from lapa_core.data.clip_index import INDEX_NAME, ClipIndex
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.laq.base import LatentActionModel
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.report.config import LaqReportConfig
from lapa_core.laq.report.measure import measure
from lapa_core.laq.report.page import render_page
from lapa_core.laq.report.pairs import ReportPairs, pairs_of_index, pairs_of_store
from lapa_core.laq.report.summary import Report, summarise, to_json


class Written(NamedTuple):
    """What a report leaves."""

    page: Path
    """report.html."""
    document: Path
    """report.json."""
    report: Report
    """The figures."""


def make_report(config: LaqReportConfig, store: FrameStore | None = None) -> Written:
    """Measure a checkpoint and write both files; `store` replaces the data set on disk.

    Raises:
        CheckpointError: the checkpoint is no latent action model.
        DataError: the data cannot be read, or hold no pair at the model's gap.
    """
    model, facts = load_laq(config.checkpoint, config.device)
    pairs = open_report_pairs(config, model.image_px, facts["gap_s"], store)
    return write_report(config, model, facts, pairs)


def write_report(
    config: LaqReportConfig, model: LatentActionModel, facts: dict[str, Any], pairs: ReportPairs
) -> Written:
    """Measure a model that is in memory; `facts` are its checkpoint's (design, weights_sha256, training)."""
    measured = measure(model, pairs, progress=config.progress)
    report = summarise(
        measured, pairs, codes=model.codes, permutations=config.permutations, seed=config.seed
    )
    about = _about(config, model, facts, pairs)
    config.out.mkdir(parents=True, exist_ok=True)
    document, page = config.out / "report.json", config.out / "report.html"
    document.write_text(json.dumps(to_json(report, about), indent=1, allow_nan=False) + "\n")
    page.write_text(render_page(report, about, model, measured, pairs), encoding="utf-8")
    return Written(page, document, report)


def open_report_pairs(
    config: LaqReportConfig, image_px: int, gap_s: float, store: FrameStore | None = None
) -> ReportPairs:
    """Draw the pairs to measure from a data set.

    Raises:
        DataError: the data cannot be read, or has fewer episodes than `first_episode` skips.
    """
    if store is None and (config.data / INDEX_NAME).is_file():
        return pairs_of_index(
            ClipIndex.load(config.data),
            image_px,
            gap_s,
            max_pairs=config.max_pairs,
            seed=config.seed,
            first_clip=config.first_episode,
            clips=config.episodes,
            progress=config.progress,
        )
    store = store or FrameStore.load(config.data, image_px, progress=config.progress)
    end = config.first_episode + config.episodes if config.episodes else store.num_episodes
    chosen = range(config.first_episode, min(end, store.num_episodes))
    if not chosen:
        raise DataError(
            f"first_episode is {config.first_episode}, but {config.data} has {store.num_episodes} episodes; "
            f"allowed is 0 to {store.num_episodes - 1}"
        )
    return pairs_of_store(
        store.subset(chosen),
        gap_s,
        max_pairs=config.max_pairs,
        seed=config.seed,
        first_episode=config.first_episode,
    )


def _about(
    config: LaqReportConfig, model: LatentActionModel, facts: dict[str, Any], pairs: ReportPairs
) -> dict[str, Any]:
    training = facts.get("training", {})
    return {
        "checkpoint": str(config.checkpoint),
        "weights_sha256": facts.get("weights_sha256", ""),
        "design": facts.get("model", {}).get("design", type(model).__name__),
        "image_px": model.image_px,
        "tokens": model.tokens,
        "codes": model.codes,
        "trained_on": str(training.get("data", "not recorded")),
        "data": str(config.data),
        "gap_s": pairs.gap_s,
        "pairs": len(pairs),
        "pairs_available": pairs.available,
        "episodes_used": len(pairs.names),
        "first_episode": config.first_episode,
        "seed": config.seed,
    }


def main(config: LaqReportConfig) -> None:
    """Write the report; say the verdict and where the page is."""
    written = make_report(config)
    verdict = written.report.verdict
    print(f"{verdict.level}: {verdict.summary}")
    for criterion in verdict.criteria:
        unit = f" {criterion.unit}" if criterion.unit else ""
        print(f"  {criterion.level:<11} {criterion.key}: {criterion.value:.2f}{unit}")
    print(f"page: {written.page}")
