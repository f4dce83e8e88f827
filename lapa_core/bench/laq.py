# SPDX-License-Identifier: Apache-2.0
"""`lapa bench laq`: training images per second of our loop and of a plain one over the same model; JSON at the end.

    lapa bench laq                               # CPU, a small model, under a minute
    lapa bench laq --device cuda --preset paper  # what the README's figures for a GPU are made with

The plain loop is the release's way: float32, eager, contiguous images and weights, Adam's default, the loss read off at
every step; on a GPU also with TF32, which the release does not set. Ours is what `lapa laq train` runs. All take uint8
frames that are in memory (`lapa bench video` measures loading), turn by turn, so that a busy machine slows all alike;
the median turn of each counts. Labelling is timed too.

The ceiling is what square matrix products reach in the same precision in the same run; the share of it counts the
operations of the forward and backward pass, without the optimizer, as torch's FlopCounterMode sees them.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lapa_core.data.pair_batch import PairBatch
from lapa_core.errors import ContractError
from lapa_core.laq.checkpoint import build_laq
from lapa_core.laq.objective import LaqObjective
from lapa_core.laq.presets import LAQ_TRAIN
from lapa_core.laq.train import GRADIENT_CLIP
from lapa_core.laq.train_config import LaqTrainConfig
from lapa_core.train.augment import images_of
from lapa_core.train.optimizer import adamw
from lapa_core.train.parallel import Parallel

Step = Callable[[], object]

_BATCHES = 4
"""Different batches that are cycled through, so that none is in a cache by chance."""
_CEILING_SIDE = {"cuda": 8192, "cpu": 1024}
"""Side of the square matrices of the ceiling."""


@dataclass(frozen=True, kw_only=True)
class BenchLaqConfig:
    """What is measured."""

    device: str = "cpu"
    """Torch device."""
    preset: str = ""
    """Preset of `lapa laq train` whose model and recipe are used; default debug_paper on a CPU, paper on a GPU."""
    batch_size: int = 0
    """Pairs per step; 0 takes the preset's."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of our loop; auto is bf16 on a GPU and fp32 on a CPU. The plain loop is always fp32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether our loop compiles the model; auto does on a GPU. On a CPU that takes minutes and pays after hours."""
    rounds: int = 7
    """Turns of each loop."""
    steps: int = 0
    """Steps per turn; 0 is 10 on a GPU and 4 on a CPU."""

    def __post_init__(self) -> None:
        if self.preset and self.preset not in LAQ_TRAIN:
            raise ContractError(f"preset is {self.preset!r}; there are {', '.join(LAQ_TRAIN)}")
        if self.batch_size < 0 or self.rounds < 1 or self.steps < 0:
            raise ContractError(
                f"batch_size {self.batch_size}, rounds {self.rounds} and steps {self.steps} must be at least 0, 1, 0"
            )


def recipe_of(config: BenchLaqConfig) -> LaqTrainConfig:
    """Return the training recipe whose speed is measured."""
    gpu = config.device.startswith("cuda")
    recipe = LAQ_TRAIN[config.preset or ("paper" if gpu else "debug_paper")]
    precision: Literal["fp32", "bf16"] = "bf16" if gpu else "fp32"
    if config.precision != "auto":
        precision = config.precision
    return replace(
        recipe,
        device=config.device,
        batch_size=config.batch_size or recipe.batch_size,
        precision=precision,
        compile=gpu if config.compile == "auto" else config.compile == "on",
        labelled=None,
        labelled_episodes=0,
    )


def random_batches(recipe: LaqTrainConfig) -> list[PairBatch]:
    """Return batches of noise: what the frames show does not change the time that they take."""
    rng = np.random.default_rng(0)
    side = recipe.model.image_px
    shape = (2, recipe.batch_size, side, side, 3)
    return [PairBatch(*rng.integers(0, 256, shape, np.uint8)) for _ in range(_BATCHES)]


def our_step(recipe: LaqTrainConfig, batches: list[PairBatch]) -> tuple[Step, LaqObjective]:
    """Return one step of the loop of `lapa laq train`, with what it trains."""
    parallel = Parallel(recipe.device)
    torch.manual_seed(0)
    objective = LaqObjective(build_laq(recipe.model).train(), precision=recipe.precision)
    module = parallel.wrap(objective, compiled=recipe.compile)
    optimizer = adamw(
        objective, recipe.learning_rate, weight_decay=recipe.weight_decay, beta2=recipe.beta2
    )
    done = 0

    def step() -> None:
        nonlocal done
        objective.model.set_step(seed=0, step=done)
        x0, x1 = images_of(batches[done % len(batches)], parallel.device)
        loss = module(x0, x1, x0, x1)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), GRADIENT_CLIP)
        optimizer.step()
        objective.model.after_step(done, recipe.steps)
        done += 1

    return step, objective


def plain_step(recipe: LaqTrainConfig, batches: list[PairBatch]) -> tuple[Step, nn.Module]:
    """Return one step of a plain float32 loop over the same model, with what it trains."""
    torch.manual_seed(0)
    model = build_laq(recipe.model).train().to(recipe.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    done = 0

    def images(frames_BSSC: np.ndarray) -> torch.Tensor:
        floats = torch.from_numpy(frames_BSSC).permute(0, 3, 1, 2).contiguous()
        return floats.to(recipe.device).float() / 255.0

    def step() -> float:
        nonlocal done
        model.set_step(seed=0, step=done)
        x0, x1 = (images(frames) for frames in batches[done % len(batches)][:2])
        loss = nn.functional.mse_loss(model.predict(x0, x1, x0), model.target(x1))
        loss = loss + model.auxiliary_loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
        optimizer.step()
        model.after_step(done, recipe.steps)
        done += 1
        return loss.item()

    return step, model


def with_tf32(step: Step) -> Step:
    """Return a step whose float32 matrix products may run in TF32."""

    def faster() -> None:
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            step()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False

    return faster


def clock(device: str) -> float:
    """Return seconds: of this process's CPUs, or of the wall once a GPU has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def by_turns(steps: dict[str, Step], device: str, *, rounds: int, repeat: int) -> dict[str, float]:
    """Return the median time of one call of each [s], measured turn by turn."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = clock(device)
            for _ in range(repeat):
                step()
            taken[name].append((clock(device) - start) / repeat)
    return {name: statistics.median(values) for name, values in taken.items()}


def matmul_ceiling(device: str, precision: str) -> float:
    """Return the operations per second that square matrix products reach."""
    kind = "cuda" if device.startswith("cuda") else "cpu"
    side = _CEILING_SIDE[kind]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product: dict[str, Step] = {"matmul": lambda: a @ b}
    by_turns(product, device, rounds=1, repeat=3)
    return 2 * side**3 / by_turns(product, device, rounds=7, repeat=10)["matmul"]


def step_operations(recipe: LaqTrainConfig, batch: PairBatch) -> int:
    """Return the floating-point operations of one forward and backward pass, counted on an eager copy."""
    model = build_laq(recipe.model).train().to(recipe.device)
    model.set_step(seed=0, step=0)
    x0, x1 = images_of(batch, torch.device(recipe.device))
    with FlopCounterMode(display=False) as counter:
        nn.functional.mse_loss(model.predict(x0, x1, x0), model.target(x1)).backward()
    return counter.get_total_flops()


def measure(config: BenchLaqConfig) -> dict[str, Any]:
    """Measure both loops, labelling and the ceiling.

    Returns:
        Images per second (two per pair) of `ours`, `plain` and `labelling`; on a CPU per CPU second.
    """
    recipe = recipe_of(config)
    batches = random_batches(recipe)
    repeat = config.steps or (10 if config.device.startswith("cuda") else 4)
    operations = step_operations(recipe, batches[0])
    plain, _ = plain_step(recipe, batches)
    ours, objective = our_step(recipe, batches)
    start = time.perf_counter()
    for _ in range(3):  # warm up: compile, autotune, allocate
        ours()
        plain()
    warm_s = time.perf_counter() - start
    loops = {"ours": ours, "plain": plain}
    if config.device.startswith("cuda"):
        loops["plain_tf32"] = with_tf32(plain)
    seconds = by_turns(loops, config.device, rounds=config.rounds, repeat=repeat)
    model, (x0, x1) = objective.model, batches[0][:2]
    seconds |= by_turns(
        {"labelling": lambda: model.encode(x0, x1)}, config.device, rounds=config.rounds, repeat=1
    )
    ceiling = matmul_ceiling(config.device, recipe.precision)
    images = {name: 2 * recipe.batch_size / taken for name, taken in seconds.items()}
    return {
        "images_per_second": {name: round(value, 1) for name, value in images.items()},
        "ratio": round(seconds["plain"] / seconds["ours"], 3),
        "parameters": sum(p.numel() for p in model.parameters()),
        "operations_per_step": operations,
        "matmul_ceiling": float(f"{ceiling:.4g}"),
        "share_of_ceiling": round(operations / seconds["ours"] / ceiling, 4),
        "precision": recipe.precision,
        "compiled": recipe.compile,
        "batch_size": recipe.batch_size,
        "warm_up_s": round(warm_s, 1),
    }


def main(config: BenchLaqConfig) -> None:
    """Measure, and print one JSON object on the last line."""
    gpu = config.device.startswith("cuda")
    result = {
        "bench": "laq",
        "config": asdict(config),
        "machine": torch.cuda.get_device_name()
        if gpu
        else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **measure(config),
    }
    if gpu:
        result["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    sys.stdout.write(json.dumps(result) + "\n")
