# SPDX-License-Identifier: Apache-2.0
"""`lapa laq label`: codes and pre-quantised vectors of every frame of a data set that has a later one.

The data set is dealt into shards by its clips alone; a shard's file is a function of the frames, the checkpoint and
the settings in `labels.json`. So a killed run goes on where it was, and one process, many, or a cluster leave the
same bytes. That holds on machines of one kind with one set of versions: another processor, a GPU or another torch
may round the vectors differently, and then a code may differ where two are equally near.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from lapa_core.checkpoint import load_config
from lapa_core.cluster import map_shards
from lapa_core.data.mixture import SUFFIXES, load_mixture
from lapa_core.data.store import FrameStore
from lapa_core.errors import DataError
from lapa_core.laq.checkpoint import KIND
from lapa_core.laq.label_config import LaqLabelConfig
from lapa_core.laq.label_files import (
    FACTS_FILE,
    JOURNAL_FILE,
    LabelFacts,
    append_journal,
    read_facts,
    read_journal,
    write_facts,
    write_whole,
)
from lapa_core.laq.label_plan import Shard, plan_shards
from lapa_core.laq.label_shard import Inputs, Opened, ShardWork, make_shard, open_once
from lapa_core.laq.labels import LatentLabels
from lapa_core.laq.usage import code_usage, warn_if_collapsed
from lapa_core.paths import alone_in

__all__ = ["LaqLabelConfig", "label", "main"]


def label(config: LaqLabelConfig, store: FrameStore | None = None) -> Path:
    """Write the labels and return their folder; `store` replaces the data set on disk, in this process.

    A mixture gets a folder of labels per corpus, each at the corpus' own gap; the folder of them all is returned.

    Raises:
        DataError: the data cannot be read, or the folder holds something else or cannot be written.
        CheckpointError: no latent action model in `config.checkpoint`.
        SetupError: Ray is missing, or workers keep dying.
    """
    if store is not None and (config.workers > 1 or config.ray):
        raise DataError("frames in memory are labelled in this process: leave workers and ray away")
    made_by = load_config(config.checkpoint, KIND)["weights_sha256"]
    data = config.data.resolve()  # `.` has no name
    folder = config.out or data.with_name(f"{data.name}.latents") / made_by[:12]
    if store is not None or config.data.suffix not in SUFFIXES:
        _label_one(config, folder, made_by, store)
        return folder
    if config.gap_s is not None:
        raise DataError(f"the corpora of {config.data} have their own gaps; leave gap_s away")
    for number, corpus in enumerate(load_mixture(config.data)):
        one = replace(config, data=corpus.data, gap_s=corpus.gap_s)
        _label_one(one, folder / f"{number:02d}_{corpus.data.name}", made_by, scan=True)
    return folder


def _label_one(
    config: LaqLabelConfig,
    folder: Path,
    made_by: str,
    store: FrameStore | None = None,
    *,
    scan: bool = False,
) -> None:
    inputs = Inputs(
        data=config.data.absolute(),
        checkpoint=config.checkpoint.absolute(),
        checkpoint_hash=made_by,
        max_episodes=config.max_episodes,
        device=config.device,
        scan=scan,
    )
    opened = open_once(inputs) if store is None else inputs.open(store)
    facts = label_facts(config, opened)
    source = opened.source
    rows = (len(source.pairs(clip, facts.gap_s)) for clip in range(len(source.names)))
    plan = plan_shards(rows, facts.shard_rows)
    if not plan:
        raise DataError(
            f"no clip of {config.data} is longer than {facts.gap_s} s; give a shorter gap"
        )
    work: Callable[[Shard], bytes] = ShardWork(inputs=inputs, facts=facts)
    if store is not None:
        work = partial(make_shard, source=source, model=opened.model, facts=facts)
    try:
        with alone_in(folder):  # a second run on it waits, and then finds the labels there
            _write(config, folder, facts, plan, work)
    finally:
        open_once.cache_clear()
    warn_if_collapsed(code_usage(LatentLabels.load(folder).codes_PK, len(facts.centres)))


def label_facts(config: LaqLabelConfig, opened: Opened) -> LabelFacts:
    """Collect what the labels will be a function of."""
    model, source = opened.model, opened.source
    centres_ND = model.centres()
    return LabelFacts(
        checkpoint_hash=opened.checkpoint_hash,
        gap_s=config.gap_s or opened.gap_s,
        image_px=model.image_px,
        tokens=model.tokens,
        dim=centres_ND.shape[1],
        centres=centres_ND.tolist(),
        data=source.identity,
        frames_per_clip=source.num_frames,
        shard_rows=config.shard_rows,
        batch_size=config.batch_size,
    )


def _write(
    config: LaqLabelConfig,
    folder: Path,
    facts: LabelFacts,
    plan: list[Shard],
    work: Callable[[Shard], bytes],
) -> None:
    """Make what is not there whole, and write `labels.json` when nothing is missing."""
    hashes = _kept(folder, facts, plan, progress=config.progress)
    missing = [shard for shard in plan if shard.number not in hashes]
    if missing:
        _begin(folder, facts, hashes)
    rows = sum(shard.rows for shard in plan)
    done = rows - sum(shard.rows for shard in missing)
    gpus = 1.0 if config.device.startswith("cuda") else 0.0
    with tqdm(
        total=rows, initial=done, desc="labelling", unit="pair", disable=not config.progress
    ) as bar:
        for position, content in map_shards(
            work, missing, workers=config.workers, ray=config.ray, gpus=gpus
        ):
            shard = missing[position]
            write_whole(folder / shard.name, content)
            hashes[shard.number] = hashlib.sha256(content).hexdigest()
            append_journal(folder, shard.number, hashes[shard.number])
            bar.update(shard.rows)
    write_facts(folder, facts, [hashes[shard.number] for shard in plan])
    (folder / JOURNAL_FILE).unlink(missing_ok=True)


def _begin(folder: Path, facts: LabelFacts, hashes: dict[int, str]) -> None:
    """Say that the labels are not finished, and which shards are."""
    lines = "".join(f"{json.dumps(entry)}\n" for entry in hashes.items())
    write_whole(folder / JOURNAL_FILE, lines.encode())
    write_facts(folder, facts, None)


def _kept(folder: Path, facts: LabelFacts, plan: list[Shard], *, progress: bool) -> dict[int, str]:
    """Return the SHA-256 of each shard that an earlier run left whole; clear away what it left half written.

    Raises:
        DataError: the folder holds other labels, or something else.
    """
    half = set(folder.glob(".labels*"))
    recorded: dict[int, str] = {}
    if (folder / FACTS_FILE).exists():
        found, finished = read_facts(folder)
        _check_same(folder, found, facts)
        recorded = read_journal(folder) if finished is None else dict(enumerate(finished))
    elif {path.name for path in set(folder.iterdir()) - half} - {JOURNAL_FILE}:
        raise DataError(f"{folder} is not empty and holds no labels; give another --out")
    for path in half:
        path.unlink(missing_ok=True)
    kept = {}
    for shard in tqdm(plan, desc="verifying", unit="file", leave=False, disable=not progress):
        path = folder / shard.name
        if shard.number in recorded and path.is_file():
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            if sha256 == recorded[shard.number]:
                kept[shard.number] = sha256
    return kept


def _check_same(folder: Path, found: LabelFacts, wanted: LabelFacts) -> None:
    other = "give another --out, or delete the folder"
    if found.checkpoint_hash != wanted.checkpoint_hash:
        raise DataError(
            f"{folder} holds labels of checkpoint {found.checkpoint_hash[:12]}, not of "
            f"{wanted.checkpoint_hash[:12]}; {other}"
        )
    if found.data != wanted.data:
        raise DataError(
            f"{folder} holds labels of the data {found.data.describe()}, not of "
            f"{wanted.data.describe()}; {other}"
        )
    wanted_fields = asdict(wanted)
    changed = [name for name, value in asdict(found).items() if value != wanted_fields[name]]
    if changed:
        shown = ", ".join(f"{n} {getattr(found, n)} not {getattr(wanted, n)}" for n in changed)
        raise DataError(f"{folder} holds labels made otherwise ({shown[:200]}); {other}")


def main(config: LaqLabelConfig) -> None:
    """Label, and say where the labels are."""
    print(f"latent labels: {label(config)}")
