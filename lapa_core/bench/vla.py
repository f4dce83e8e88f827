# SPDX-License-Identifier: Apache-2.0
"""`lapa bench vla`: milliseconds from a frame to an action, against plain `generate` and the floor; JSON at the end.

    lapa bench vla                             # CPU: the small trunk and the 7B model's shape at toy widths
    lapa bench vla --device cuda               # LAPA-7B with random weights, frame tokenizer included
    lapa bench vla --device cuda --compile off # without the minutes that compiling takes

A frame is uint8 in host memory, an action its bins in host memory, one instruction stays; `new_instruction` is a frame
with another one. All ways take the same frames turn by turn, so that a busy machine slows all alike. `plain` is
`transformers`' own Llama and its `generate` over the same weights and with the same frame tokenizer. The floor is
described in `lapa_core.bench.vla_floor`.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lapa_core.bench.vla_floor import (
    Floor,
    copy_bandwidth,
    matmul_rate,
    operations_of,
    wall_s,
    weight_bytes_read,
)
from lapa_core.bench.vla_models import INSTRUCTION, MODELS, SECOND_INSTRUCTION, random_model
from lapa_core.bench.vla_plain import PlainLlama
from lapa_core.errors import ContractError
from lapa_core.train.augment import to_float
from lapa_core.vla.base import Inputs, VlaModel
from lapa_core.vla.checkpoint import load_vla
from lapa_core.vla.decode.choose import greedy
from lapa_core.vla.decode.int8 import int8_steps
from lapa_core.vla.decode.static import DecodeOptions, Decoder, head_tokens
from lapa_core.vla.extra import blank_extra, extra_tensors
from lapa_core.vla.lwm.model import LwmVla

Decode = Callable[[Inputs], Tensor]
"""Prepared inputs to ids (1, K) on the model's device."""

_FRAMES = 8
"""Different frames that are cycled through."""
_WARM_UP = 3
"""Frames of each way before the first that counts."""


@dataclass(frozen=True, kw_only=True)
class BenchVlaConfig:
    """Measure milliseconds from a frame to an action: ours, plain `generate` over the same weights, and the floor."""

    device: str = "cpu"
    """Torch device."""
    preset: str = ""
    """small, lwm_debug or lapa_7b; default small and then lwm_debug on a CPU, lapa_7b on a GPU."""
    checkpoint: Path | None = None
    """A checkpoint to measure instead of random weights, in the type that it is stored in; without `plain` and with a
    floor of operations alone where it is not LWM's."""
    head: Literal["action", "latent"] = "action"
    """Which head answers: 7 bins or 4 codes."""
    frames: int = 0
    """Frames of each way that count; 0 is 200 on a GPU and 30 on a CPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether our decoder compiles its passes; auto does on a GPU."""
    int8: bool = False
    """Also measure ours with int8 weights in the passes over one position; made for `compile`."""

    def __post_init__(self) -> None:
        if self.preset and self.preset not in MODELS:
            raise ContractError(f"preset is {self.preset!r}; there are {', '.join(MODELS)}")
        if self.frames < 0:
            raise ContractError(
                f"frames is {self.frames}; it must be at least 1, or 0 for the default"
            )

    @property
    def gpu(self) -> bool:
        """Whether it runs on one."""
        return self.device.startswith("cuda")


class Eye:
    """Frames of noise, and from a frame to ids in host memory; other inputs are blank."""

    def __init__(self, model: VlaModel):
        side = model.config.image_px
        rng = np.random.default_rng(0)
        self._frames = rng.integers(0, 256, (_FRAMES, side, side, 3), np.uint8)
        self._model = model
        others = {name: value[None] for name, value in blank_extra(model).items()}
        self._others = extra_tensors(others, model.device)

    def inputs(self, number: int, instruction: str = INSTRUCTION) -> Inputs:
        """Return the model's inputs of one frame."""
        frame_1HWC = torch.from_numpy(self._frames[number % _FRAMES][None])
        image_1CHW = to_float(frame_1HWC.to(self._model.device))
        return self._model.prepare(image_1CHW, [instruction], self._others)

    @torch.no_grad()
    def act(self, decode: Decode, number: int, instruction: str = INSTRUCTION) -> NDArray[np.int64]:
        """Return the ids (K,) of one frame."""
        ids_K: NDArray[np.int64] = decode(self.inputs(number, instruction))[0].cpu().numpy()
        return ids_K


def ways_of(model: VlaModel, config: BenchVlaConfig) -> dict[str, Decode]:
    """Return the ways to decode that are compared: `ours`, for LWM also `plain`, and `int8` if asked for."""
    if not isinstance(model, LwmVla):
        return {"ours": lambda inputs: model.decode(inputs, config.head, greedy)}
    compiled = config.gpu if config.compile == "auto" else config.compile == "on"

    def static(way: LwmVla) -> Decode:
        decoder = Decoder(DecodeOptions(compile=compiled))
        return lambda inputs: decoder.decode(way, inputs, config.head, greedy)

    ways = {"ours": static(model), "plain": PlainLlama(model, config.head).decode}
    if config.int8:
        ways["int8"] = static(int8_steps(model))
    return ways


def latencies(
    eye: Eye, ways: dict[str, Decode], config: BenchVlaConfig, label: str
) -> dict[str, dict[str, float]]:
    """Return p50 and p99 of each way [ms], and of ours with another instruction than the frame before."""
    count = config.frames or (200 if config.gpu else 30)
    quiet = not sys.stderr.isatty()
    for decode in tqdm(ways.values(), desc=f"{label}: first frames", disable=quiet):
        for number in range(_WARM_UP):
            eye.act(decode, number)
    taken: dict[str, list[float]] = {name: [] for name in [*ways, "new_instruction"]}

    def time_one(name: str, decode: Decode, number: int, instruction: str) -> None:
        taken[name].append(wall_s(lambda: eye.act(decode, number, instruction), config.device))

    for number in tqdm(range(count), desc=label, unit="frame", disable=quiet):
        time_one("new_instruction", ways["ours"], number, SECOND_INSTRUCTION)
        eye.act(ways["ours"], number)  # the first instruction is known again
        for name, decode in ways.items():
            time_one(name, decode, number, INSTRUCTION)
    return {name: _percentiles_ms(values) for name, values in taken.items()}


def _percentiles_ms(values_s: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values_s, (50, 99)) * 1e3
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def floor_of(
    eye: Eye, model: VlaModel, config: BenchVlaConfig, bandwidth: float, rate: float
) -> tuple[Floor, dict[str, int]]:
    """Return the floor of a frame whose instruction is known, with what was counted."""
    if not isinstance(model, LwmVla):
        whole = operations_of(lambda: model.decode(eye.inputs(0), config.head, greedy))
        return Floor(whole / rate, 0.0), {"operations_per_frame": whole}
    decoder = Decoder(DecodeOptions(graphs=False))
    head, later = config.head, head_tokens(model, config.head) - 1

    def one_position() -> None:
        embedding_1D = model.embed(head, torch.zeros(1, dtype=torch.int64, device=model.device), 0)
        place_11 = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        hidden_11D = model.backbone(embedding_1D[:, None], place_11, None, None)
        model.logits(head, hidden_11D[:, 0], 1)

    with torch.no_grad():
        decoder.decode(model, eye.inputs(0), head, greedy)
        whole = operations_of(lambda: decoder.decode(model, eye.inputs(1), head, greedy))
        read = weight_bytes_read(model, one_position)
        early = whole - later * operations_of(one_position)
    counted = {
        "operations_before_the_second_token": early,
        "weight_bytes_per_token": read,
        "tokens_after_the_first": later,
    }
    return Floor(early / rate, later * read / bandwidth), counted


def measure(name: str, model: VlaModel, config: BenchVlaConfig) -> dict[str, Any]:
    """Measure one model, `name` in the progress bar.

    Returns:
        `ms` (p50 and p99 of each way), `floor_ms`, `times_the_floor`, `times_faster_than_plain`, and the facts behind.
    """
    dtype = next(model.parameters()).dtype
    bandwidth, rate = copy_bandwidth(config.device), matmul_rate(config.device, dtype)
    eye = Eye(model)
    floor, counted = floor_of(eye, model, config, bandwidth, rate)
    ways = ways_of(model, config)
    ms = latencies(eye, ways, config, name)
    result: dict[str, Any] = {
        "ms": ms,
        "floor_ms": {
            "total": _rounded(floor.total_s * 1e3),
            "tokenizer_and_prefix": _rounded(floor.compute_s * 1e3),
            "later_tokens": _rounded(floor.read_s * 1e3),
        },
        "times_the_floor": _rounded(ms["ours"]["p50"] / 1e3 / floor.total_s),
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(dtype).removeprefix("torch."),
        **counted,
        "copy_bytes_per_second": _rounded(bandwidth),
        "matmul_operations_per_second": _rounded(rate),
    }
    if "plain" in ways:
        result["times_faster_than_plain"] = _rounded(ms["plain"]["p50"] / ms["ours"]["p50"])
        result["same_ids_as_plain"] = _rounded(_agreement(eye, ways["ours"], ways["plain"]))
    if "int8" in ways:
        result["int8_times_faster_than_ours"] = _rounded(ms["ours"]["p50"] / ms["int8"]["p50"])
    return result


def _agreement(eye: Eye, one: Decode, other: Decode) -> float:
    """Return the share of equal ids over all frames."""
    ids_2NK = np.array([[eye.act(way, n) for n in range(_FRAMES)] for way in (one, other)])
    return float(np.mean(ids_2NK[0] == ids_2NK[1]))


def models_of(config: BenchVlaConfig) -> dict[str, Callable[[], VlaModel]]:
    """Return what makes each model that is measured, by name."""
    if (folder := config.checkpoint) is not None:
        return {str(folder): lambda: load_vla(folder, device=config.device).model}
    default = ("lapa_7b",) if config.gpu else ("small", "lwm_debug")
    presets = (config.preset,) if config.preset else default
    beside = 0.7 if config.int8 else 0.2
    return {
        preset: partial(random_model, preset, config.device, beside=beside) for preset in presets
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def main(config: BenchVlaConfig) -> None:
    """Measure, and print one JSON object on the last line."""
    models = {name: measure(name, make(), config) for name, make in models_of(config).items()}
    result = {
        "bench": "vla",
        "config": asdict(config),
        "machine": torch.cuda.get_device_name()
        if config.gpu
        else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "models": models,
    }
    if config.gpu:
        result["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    sys.stdout.write(json.dumps(result, default=str) + "\n")
