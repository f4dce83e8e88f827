# SPDX-License-Identifier: Apache-2.0
"""The cells of the experiment: what each one runs, what it needs first, and what it measures.

A cell's name says all that distinguishes it: `finetune/default/lapa/50/s1` is LAPA pretrained on videos of the
default domain, finetuned on 50 labelled episodes, seed 1. Cells run in worker processes and hand back a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lapa_core.checkpoint import load_config
from lapa_core.data.store import FrameStore, join_stores
from lapa_core.errors import DataError
from lapa_core.evaluate import EvalConfig, evaluate
from lapa_core.experiment.config import ExperimentConfig
from lapa_core.experiment.data import load_video_set, make_video_set
from lapa_core.idm.checkpoint import LoadedIdm, load_idm
from lapa_core.idm.config import IDM_TRAIN
from lapa_core.idm.pseudo import seen_actions
from lapa_core.idm.train import train as train_idm
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.label import label
from lapa_core.laq.label_config import LaqLabelConfig
from lapa_core.laq.presets import LAQ_TRAIN
from lapa_core.laq.probe import displacement, probe_model
from lapa_core.laq.train import train as train_laq
from lapa_core.presets import VLA_FINETUNE, VLA_PRETRAIN
from lapa_core.unipi.config import UNIPI_TRAIN, UnipiPolicyConfig
from lapa_core.unipi.join import join as join_unipi
from lapa_core.unipi.train import train as train_unipi
from lapa_core.vla.config import TableConfig
from lapa_core.vla.finetune import train as finetune
from lapa_core.vla.pretrain import train as pretrain
from lapa_core.vla.table import fit as fit_table

DESIGNS = {"lapa": "conv", "lapa_paper": "paper"}
"""Arm -> latent action model: the chosen design, and the paper's layout."""
TRUNK_STEPS_PER_EPISODE = 2
"""A pretrained trunk is finetuned for so many steps per labelled episode: few labels overfit it quickly."""
NEAR_CODES_M = 0.010
"""How far around a drawn code a table takes the mean action [m]: docs/learning.md has what else was tried."""
TABLE_TEMPERATURE = 0.7
"""Of the sampling of a table's codes; 1, 0.5 and 0 are in docs/learning.md. Heads are sampled at 1."""
OTHER_ROBOTS = ("shifted", "hard")
"""What OpenVLA's recipe learns true actions from: another camera, and another arm with another camera."""
DATA_SEED = {"default": 1, "shifted": 1001, "hard": 2001, "labels": 2}
"""Collection seeds; rollouts use other ones, so their scenes are unseen."""


@dataclass(frozen=True)
class Cell:
    """One unit of work."""

    name: str
    """Unique; also its directory under the experiment's."""
    run: Callable[[Any, Cell], dict[str, Any]]
    """Does the work under the suite's configuration and returns the figures."""
    needs: tuple[str, ...] = ()
    """Names of the cells that must be finished first."""
    labels: int = 0
    """Labelled episodes used."""
    seed: int = 0
    """Seed of the cell."""


def all_cells(config: ExperimentConfig) -> Iterator[Cell]:
    """Yield every cell, the most informative first: the main comparison, then (d), then the paper's layout."""
    yield Cell("data/default", run_data)
    yield Cell("data/labels", run_data)
    seeds = range(config.seeds)
    for seed in seeds:
        yield from _videos_to_policy(config, "default", "lapa", seed)
    for seed in seeds:
        for count in config.label_counts:
            yield _finetune("default", "scratch", count, seed)
        yield Cell(f"pretrain/default/actionvla/s{seed}", run_actions, ("data/default",), seed=seed)
        for count in config.label_counts:
            yield _finetune("default", "actionvla", count, seed)
        for count in config.label_counts:
            yield Cell(
                f"idm/{count}/s{seed}", run_idm, ("data/labels", "data/default"), count, seed
            )
            yield from _videos_to_vpt("default", count, seed)
        yield Cell(f"unipi/default/s{seed}", run_unipi, ("data/default",), seed=seed)
        for count in config.label_counts:
            yield _unipi_policy("default", count, seed)
    yield Cell("data/shifted", run_data)
    for seed in seeds:
        yield from _videos_to_policy(config, "shifted", "lapa", seed)
        yield from _videos_to_policy(config, "default", "lapa_paper", seed)
    for seed in seeds:
        yield Cell(f"pretrain/shifted/actionvla/s{seed}", run_actions, ("data/shifted",), seed=seed)
        for count in config.label_counts:
            yield _finetune("shifted", "actionvla", count, seed)
            yield from _videos_to_vpt("shifted", count, seed)
    yield Cell("data/hard", run_data)
    others = "+".join(OTHER_ROBOTS)
    for seed in seeds:
        needs = tuple(f"data/{domain}" for domain in OTHER_ROBOTS)
        yield Cell(f"pretrain/{others}/openvla/s{seed}", run_actions, needs, seed=seed)
        for count in config.label_counts:
            yield _finetune(others, "openvla", count, seed)
    for seed in seeds:
        for count in config.label_counts:
            for domain in OTHER_ROBOTS:
                needs = (f"idm/{count}/s{seed}", f"data/{domain}")
                yield Cell(f"seen/{domain}/{count}/s{seed}", run_seen, needs, count, seed)


def _videos_to_policy(config: ExperimentConfig, domain: str, arm: str, seed: int) -> Iterator[Cell]:
    """Yield the whole path of LAPA on one domain's videos: codes, pretraining, both decoders."""
    laq, pretrained = f"laq/{domain}/{DESIGNS[arm]}/s{seed}", f"pretrain/{domain}/{arm}/s{seed}"
    yield Cell(laq, run_laq, (f"data/{domain}",), seed=seed)
    yield Cell(pretrained, run_pretrain, (laq, f"data/{domain}"), seed=seed)
    for count in config.label_counts:
        yield _finetune(domain, arm, count, seed)
        needs = ("data/labels", pretrained)
        yield Cell(f"table/{domain}/{arm}/{count}/s{seed}", run_table, needs, count, seed)


def _videos_to_vpt(domain: str, count: int, seed: int) -> Iterator[Cell]:
    """Yield VPT: videos with the actions that a model of the labelled episodes sees in them, and finetuning."""
    needs = (f"idm/{count}/s{seed}", f"data/{domain}")
    yield Cell(_pretrained(domain, "vpt", count, seed), run_pseudo_actions, needs, count, seed)
    yield _finetune(domain, "vpt", count, seed)


def _unipi_policy(domain: str, count: int, seed: int) -> Cell:
    needs = ("data/labels", f"unipi/{domain}/s{seed}", f"idm/{count}/s{seed}")
    return Cell(f"finetune/{domain}/unipi/{count}/s{seed}", run_unipi_policy, needs, count, seed)


def _pretrained(domain: str, arm: str, count: int, seed: int) -> str:
    """Name the cell that an arm is finetuned from. VPT's pretraining has seen the labels."""
    return f"pretrain/{domain}/{arm}/{f'{count}/' if arm == 'vpt' else ''}s{seed}"


def _finetune(domain: str, arm: str, count: int, seed: int) -> Cell:
    needs = () if arm == "scratch" else (_pretrained(domain, arm, count, seed),)
    name = f"finetune/{domain}/{arm}/{count}/s{seed}"
    return Cell(name, run_finetune, ("data/labels", *needs), count, seed)


def run_data(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Collect the videos of a domain, or the expert's labelled episodes where none were recorded.

    Raises:
        DataError: fewer episodes were recorded than the largest label count asks for.
    """
    kind = cell.name.split("/")[1]
    if kind == "labels" and config.labels is not None:
        store = label_store(config)
        if store.num_episodes < max(config.label_counts):
            raise DataError(
                f"label_counts are {config.label_counts} and {config.labels} holds {store.num_episodes} episodes; "
                "give --label-counts that it can fill"
            )
        return {"episodes": store.num_episodes, "frames": len(store), "source": str(config.labels)}
    episodes = (
        max(config.label_counts) if kind == "labels" else config.videos + config.probe_episodes
    )
    domain = "default" if kind == "labels" else kind
    make_video_set(
        _at(config, cell.name),
        episodes=episodes,
        seed=DATA_SEED[kind],
        domain=domain,
        image_px=64,
        workers=1,
    )
    return {"episodes": episodes, "frames": len(load_video_set(_at(config, cell.name)).store)}


def run_laq(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Train a latent action model on the videos, label them, probe it on held-out episodes."""
    _, domain, design, _ = cell.name.split("/")
    out = _at(config, cell.name)
    recipe = LAQ_TRAIN[config.size if design == "conv" else f"{config.size}_paper"]
    recipe = replace(
        recipe, data=Path(domain), out=out, seed=cell.seed, max_episodes=0, progress=False
    )
    videos = load_video_set(_at(config, f"data/{domain}"))
    train_store = videos.store.subset(range(config.videos)).at_size(recipe.model.image_px)
    checkpoint = train_laq(recipe, train_store).checkpoint
    label(
        LaqLabelConfig(
            data=Path(domain), checkpoint=checkpoint, out=out / "labels", progress=False
        ),
        train_store,
    )
    held_out = videos.subset(range(config.videos, config.videos + config.probe_episodes))
    model, facts = load_laq(checkpoint)
    frames = held_out.store.at_size(recipe.model.image_px)
    report = probe_model(model, facts["gap_s"], frames, held_out.position_N2)
    return {"steps": recipe.steps, **asdict(report)}


def run_pretrain(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Pretrain the trunk on the codes of the videos."""
    _, domain, arm, _ = cell.name.split("/")
    recipe = VLA_PRETRAIN[config.size]
    laq = _at(config, f"laq/{domain}/{DESIGNS[arm]}/s{cell.seed}")
    recipe = replace(
        recipe, data=Path(domain), labels=laq / "labels", laq=laq / "checkpoint", out=_at(config, cell.name),
        seed=cell.seed, max_episodes=0, progress=False, steps=config.pretrain_steps or recipe.steps,
    )  # fmt: skip
    store = load_video_set(_at(config, f"data/{domain}")).store.subset(range(config.videos))
    last = pretrain(recipe, store).history[-1][1]
    return {"steps": recipe.steps, **last}


def run_actions(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Train on the true actions of all videos: ActionVLA's pretraining, and the ceiling of behaviour cloning.

    OpenVLA's recipe is the same on other robots; it rolls out where it was not trained.
    """
    _, domain, arm, _ = cell.name.split("/")
    recipe = VLA_FINETUNE[f"{config.size}_ceiling"]
    recipe = replace(
        recipe, data=Path(domain), out=_at(config, cell.name), seed=cell.seed, progress=False,
        steps=config.pretrain_steps or recipe.steps,
    )  # fmt: skip
    stores = [
        load_video_set(_at(config, f"data/{part}")).store.subset(range(config.videos))
        for part in domain.split("+")
    ]
    finetune(recipe, join_stores(stores))
    where = "default" if arm == "openvla" else domain
    return {"steps": recipe.steps, **_rollouts(config, cell, where)}


def run_idm(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Train an inverse dynamics model on labelled episodes."""
    recipe = replace(
        IDM_TRAIN[config.size], data=config.labels or Path("expert"), out=_at(config, cell.name), episodes=cell.labels,
        subset_seed=cell.seed, seed=cell.seed, test_share=0.0, progress=False,
    )  # fmt: skip
    loaded = load_idm(train_idm(recipe, label_store(config)).checkpoint)
    r2 = _seen_r2(config, "default", loaded)
    return {"steps": recipe.steps, **loaded.config["metrics"], "r2_displacement": r2}


def run_seen(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Measure an inverse dynamics model on videos of another domain than its labels'."""
    domain = cell.name.split("/")[1]
    loaded = load_idm(_at(config, f"idm/{cell.labels}/s{cell.seed}") / "checkpoint")
    return {"r2_displacement": _seen_r2(config, domain, loaded)}


def run_pseudo_actions(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Train on the actions that an inverse dynamics model sees in the videos: VPT's pretraining."""
    domain = cell.name.split("/")[1]
    idm = _at(config, f"idm/{cell.labels}/s{cell.seed}") / "checkpoint"
    recipe = VLA_FINETUNE[f"{config.size}_vpt"]
    recipe = replace(
        recipe, data=Path(domain), idm=idm, out=_at(config, cell.name), seed=cell.seed, progress=False,
        steps=config.pretrain_steps or recipe.steps,
    )  # fmt: skip
    store = load_video_set(_at(config, f"data/{domain}")).store.subset(range(config.videos))
    finetune(recipe, store)
    return {"steps": recipe.steps, **_rollouts(config, cell, domain)}


def run_unipi(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Train UniPi's video diffusion model on the videos; the probe's episodes measure it."""
    domain = cell.name.split("/")[1]
    recipe = replace(
        UNIPI_TRAIN[config.size], data=Path(domain), out=_at(config, cell.name), seed=cell.seed, episodes=0,
        held_out=config.probe_episodes, progress=False,
    )  # fmt: skip
    videos = load_video_set(_at(config, f"data/{domain}")).store
    seen = videos.subset(range(config.videos + config.probe_episodes))
    checkpoint = train_unipi(recipe, seen).checkpoint
    return {"steps": recipe.steps, **load_config(checkpoint)["metrics"]}


def run_unipi_policy(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Finetune the video model on labelled episodes, join it to their inverse dynamics model, and roll out."""
    domain, out = cell.name.split("/")[1], _at(config, cell.name)
    recipe = replace(
        UNIPI_TRAIN["debug" if config.size == "debug" else "sim_finetune"], data=config.labels or Path("expert"),
        init=_at(config, f"unipi/{domain}/s{cell.seed}") / "checkpoint", out=out / "video", episodes=cell.labels,
        held_out=0, subset_seed=cell.seed, seed=cell.seed, progress=False,
    )  # fmt: skip
    video = train_unipi(recipe, label_store(config)).checkpoint
    idm = _at(config, f"idm/{cell.labels}/s{cell.seed}") / "checkpoint"
    join_unipi(UnipiPolicyConfig(video=video, idm=idm, out=out))
    return {"steps": recipe.steps, **asdict(evaluate(_rollout_recipe(config, cell, "default")))}


def _seen_r2(config: ExperimentConfig, domain: str, loaded: LoadedIdm) -> float:
    """Return the R2 of the displacements in x and y that a model sees in the held-out videos of a domain."""
    last = config.videos + config.probe_episodes
    videos = load_video_set(_at(config, f"data/{domain}")).subset(range(config.videos, last))
    pairs_P2 = videos.store.valid_pairs(loaded.config["gap_s"])
    true_P2 = displacement(videos.store, pairs_P2, videos.position_N2)
    missed_P2 = seen_actions(videos.store, pairs_P2, loaded.model)[:, :2] - true_P2
    return float(1.0 - (missed_P2**2).sum() / ((true_P2 - true_P2.mean(axis=0)) ** 2).sum())


def run_finetune(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Finetune an arm on labelled episodes and roll it out in the default domain."""
    _, domain, arm, _, _ = cell.name.split("/")
    recipe = VLA_FINETUNE[f"{config.size}_scratch" if arm == "scratch" else config.size]
    pretrained = _pretrained(domain, arm, cell.labels, cell.seed)
    init = None if arm == "scratch" else _at(config, pretrained) / "checkpoint"
    if init is not None and config.size == "sim":
        recipe = replace(recipe, steps=recipe.head_steps + TRUNK_STEPS_PER_EPISODE * cell.labels)
    recipe = replace(
        recipe, data=config.labels or Path("expert"), init=init, out=_at(config, cell.name), episodes=cell.labels,
        subset_seed=cell.seed, seed=cell.seed, progress=False,
    )  # fmt: skip
    finetune(recipe, label_store(config))
    return {"steps": recipe.steps, **_rollouts(config, cell, "default")}


def run_table(config: ExperimentConfig, cell: Cell) -> dict[str, Any]:
    """Fit the code-to-action table of a pretrained model and roll it out in the default domain."""
    _, domain, arm, _, _ = cell.name.split("/")
    recipe = TableConfig(
        data=config.labels or Path("expert"),
        init=_at(config, f"pretrain/{domain}/{arm}/s{cell.seed}") / "checkpoint",
        out=_at(config, cell.name),
        episodes=cell.labels,
        subset_seed=cell.seed,
        temperature=TABLE_TEMPERATURE,
        near_codes_m=NEAR_CODES_M,
    )
    fit_table(recipe, label_store(config))
    return _rollouts(config, cell, "default")


def label_store(config: ExperimentConfig) -> FrameStore:
    """Return the labelled episodes."""
    if config.labels is None:
        return load_video_set(_at(config, "data/labels")).store
    return FrameStore.load(config.labels, 64, cache_dir=config.out / "cache")


def _rollouts(config: ExperimentConfig, cell: Cell, domain: str) -> dict[str, Any]:
    """Roll the cell's policy out as it samples by itself, and greedily."""
    recipe = _rollout_recipe(config, cell, domain)
    greedy = asdict(evaluate(replace(recipe, temperature=0.0)))
    return {**asdict(evaluate(recipe)), "greedy": greedy}


def _rollout_recipe(config: ExperimentConfig, cell: Cell, domain: str) -> EvalConfig:
    return EvalConfig(
        checkpoint=_at(config, cell.name) / "checkpoint",
        episodes=config.rollouts,
        seed=config.rollout_seed,
        domain=domain,
        progress=False,
    )


def _at(config: ExperimentConfig, name: str) -> Path:
    return config.out / name
