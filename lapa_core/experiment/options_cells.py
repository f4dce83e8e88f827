# SPDX-License-Identifier: Apache-2.0
"""The cells of the table of options: videos, the cost of a step, and for every option and seed a trained model.

`laq/hard/paper/s1` is the paper's layout on the videos of the hard domain, seed 1.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lapa_core.data.store import FrameStore
from lapa_core.experiment.cells import DATA_SEED, Cell
from lapa_core.experiment.data import load_video_set, make_video_set
from lapa_core.experiment.options_config import LaqOptionsConfig
from lapa_core.experiment.options_recipes import LABELLED_EPISODES, OPTIONS
from lapa_core.experiment.run import read_results
from lapa_core.laq.checkpoint import load_laq
from lapa_core.laq.config import PatchLaqConfig
from lapa_core.laq.probe import probe_model
from lapa_core.laq.train import train
from lapa_core.laq.train_config import LaqTrainConfig

VIDEO_PX = 64
"""Side of the videos [px]."""
TIMED_EPISODES = 40
"""Episodes that the cost of a step is measured on: what happens after the steps is then short."""
TIMED_STEPS = (2, 12)
"""Steps of the short and of the long run whose difference is the cost of a step."""
TIMED_ROUNDS = 2
REFERENCE = "default"
"""Option that every cost is measured beside, because CPU time grows with what else the machine does."""


def option_cells(config: LaqOptionsConfig) -> Iterator[Cell]:
    """Yield every cell: data, then the costs at one go (so that they compare), then the first seed of all options."""
    names = [name for name in config.options or OPTIONS if measured(config, name)]
    for domain in config.domains:
        yield Cell(f"data/{domain}", run_data)
    if not config.steps:
        for name in dict.fromkeys((REFERENCE, *(OPTIONS[n].price or n for n in names))):
            yield Cell(f"cost/{name}", run_cost, (f"data/{config.domains[0]}",))
    for seed in range(config.first_seed, config.first_seed + config.seeds):
        for domain in config.domains:
            for name in names:
                price = OPTIONS[name].price or name
                costs = () if config.steps else (f"cost/{REFERENCE}", f"cost/{price}")
                needs = (f"data/{domain}", *costs)
                yield Cell(f"laq/{domain}/{name}/s{seed}", run_option, needs, seed=seed)


def measured(config: LaqOptionsConfig, name: str) -> bool:
    """Return whether an option can be run here."""
    return bool(config.dinov2) or not OPTIONS[name].needs_dinov2


def option_key(config: LaqOptionsConfig, cell: Cell) -> dict[str, Any]:
    """Return what makes two runs of a cell the same; of the recipe, a hash."""
    kind, *rest = cell.name.split("/")
    key: dict[str, Any] = {"cell": cell.name, "videos": config.videos}
    key["probe_episodes"] = config.probe_episodes
    if kind == "data":
        return key
    name = rest[0] if kind == "cost" else rest[1]
    key["recipe"] = recipe_hash(option_recipe(config, name))
    if kind == "laq":
        times = OPTIONS[name].times
        key["budget"] = (
            f"{times * config.steps:g} steps" if config.steps else f"{times * config.seconds:g} s"
        )
    return key


def option_recipe(config: LaqOptionsConfig, name: str) -> LaqTrainConfig:
    """Return the recipe of an option, without the fields that the experiment sets."""
    option = OPTIONS[name]
    recipe = replace(
        option.recipe, data=Path("simulator"), max_episodes=0, save_every=0, progress=False
    )
    if isinstance(recipe.model, PatchLaqConfig) and option.needs_dinov2:
        recipe = replace(recipe, model=replace(recipe.model, dinov2=config.dinov2))
    return recipe


def recipe_hash(recipe: LaqTrainConfig) -> str:
    """Return a short hash of everything in a recipe but its length, seed and place."""
    fields = {
        k: v for k, v in asdict(recipe).items() if k not in ("steps", "seed", "out", "device")
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()[:12]


def run_data(config: LaqOptionsConfig, cell: Cell) -> dict[str, Any]:
    """Collect the videos of a domain: to train on, to probe on, and a few whose actions may be used."""
    domain = cell.name.split("/")[1]
    episodes = config.videos + config.probe_episodes + LABELLED_EPISODES
    make_video_set(
        config.out / cell.name, episodes=episodes, seed=DATA_SEED[domain], domain=domain,
        image_px=VIDEO_PX, workers=1,
    )  # fmt: skip
    store = load_video_set(config.out / cell.name).store
    return {"episodes": store.num_episodes, "frames": len(store)}


def run_cost(config: LaqOptionsConfig, cell: Cell) -> dict[str, Any]:
    """Measure the CPU time of one training step of an option [s], and of the reference in turns with it."""
    recipes = [option_recipe(config, name) for name in (cell.name.split("/")[1], REFERENCE)]
    videos = load_video_set(config.out / "data" / config.domains[0]).store.subset(
        range(TIMED_EPISODES)
    )
    stores = [videos.at_size(recipe.model.image_px) for recipe in recipes]
    seconds: dict[tuple[int, int], list[float]] = defaultdict(list)
    for _ in range(TIMED_ROUNDS):
        for steps in TIMED_STEPS:
            for which, (recipe, store) in enumerate(zip(recipes, stores, strict=True)):
                spent_s = _cpu_seconds(replace(recipe, steps=steps), store)
                seconds[which, steps].append(spent_s)
    short, long = TIMED_STEPS
    step_s, reference_s = (
        max(1e-4, (min(seconds[which, long]) - min(seconds[which, short])) / (long - short))
        for which in (0, 1)
    )
    return {"step_cpu_s": step_s, "reference_step_cpu_s": reference_s}


def _cpu_seconds(recipe: LaqTrainConfig, store: FrameStore) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        train(replace(recipe, out=Path(folder)), store, store if recipe.labelled else None)
        return time.process_time() - start


def run_option(config: LaqOptionsConfig, cell: Cell) -> dict[str, Any]:
    """Train an option for the given time, probe it on held-out episodes."""
    _, domain, name, _ = cell.name.split("/")
    recipe = option_recipe(config, name)
    recipe = replace(
        recipe, steps=paid_steps(config, name), seed=cell.seed, out=config.out / cell.name
    )
    videos = load_video_set(config.out / "data" / domain)
    last = config.videos + config.probe_episodes
    held_out = videos.subset(range(config.videos, last))
    parts = (range(config.videos), range(last, last + LABELLED_EPISODES))
    seen, few = (videos.store.subset(part).at_size(recipe.model.image_px) for part in parts)
    start = time.process_time()
    trained = train(recipe, seen, few if recipe.labelled else None)
    cpu_s = time.process_time() - start
    model, facts = load_laq(trained.checkpoint)
    frames = held_out.store.at_size(recipe.model.image_px)
    report = probe_model(model, facts["gap_s"], frames, held_out.position_N2)
    loss = next(row["loss"] for _, row in reversed(trained.history) if "loss" in row)
    return {"steps": recipe.steps, "cpu_s": round(cpu_s, 1), "loss": loss, **asdict(report)}


def paid_steps(config: LaqOptionsConfig, name: str) -> int:
    """Return how many steps the budget pays for: its price beside the reference, whose own price is measured once."""
    times = OPTIONS[name].times
    if config.steps:
        return round(times * config.steps)
    price = OPTIONS[name].price or name
    own, reference = (_cost(config, which) for which in (price, REFERENCE))
    dearer = own["step_cpu_s"] / own["reference_step_cpu_s"]
    return max(1, round(times * config.seconds / (dearer * reference["step_cpu_s"])))


def _cost(config: LaqOptionsConfig, name: str) -> dict[str, float]:
    key = option_key(config, Cell(f"cost/{name}", run_cost))
    rows = [row["figures"] for row in read_results(config.out) if row["key"] == key]
    cost: dict[str, float] = rows[-1]
    return cost
