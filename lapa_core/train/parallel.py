# SPDX-License-Identifier: Apache-2.0
"""One training loop for one process and for many: DDP, or FSDP2, under torchrun.

    parallel = Parallel("cuda", "ddp")
    module = parallel.wrap(objective)          # call this one; `objective` stays the place of the weights
    optimizer = adamw(objective, ...)
    ...
    module(...).backward()
    optimizer.step()

Without torchrun nothing is wrapped and accelerate is not imported. With it accelerate starts the processes' group,
chooses each one's device and wraps for DDP. FSDP2 is torch's own `fully_shard`, which is what accelerate calls too:
accelerate 1.15 shards only on accelerators, and what cannot run on CPUs could not be tested there.

Losses are means over a rank's part and gradients are averaged, so ranks together do what one process does on the joint
batch, up to the order of sums.

With precision bf16 matrices are multiplied in bfloat16 by the objective's autocast; trained weights, gradients that are
summed over ranks, and the optimizer stay in float32, whatever type the weights came in. FSDP2 then also sends its
weights in bfloat16.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lapa_core.errors import SetupError
from lapa_core.train.recompute import recompute
from lapa_core.train.sampling import Part
from lapa_core.train.synced_norm import sync_batch_norm

PATIENCE = timedelta(hours=12)
"""How long ranks wait for each other, as for rank 0 to decode a data set, where NCCL would give up after 10 minutes.
A rank that dies ends them all at once anyway: torchrun sees to that."""


class Parallel:
    """This process among those that train together."""

    def __init__(
        self, device: str, strategy: Literal["ddp", "fsdp2"] = "ddp", *, static: bool = True
    ):
        """Join the group that torchrun describes, if it started this process.

        Args:
            device: torch device; `cuda` is each process's own under torchrun.
            strategy: ddp keeps the whole model in each process, fsdp2 divides it.
            static: every backward pass uses the same parameters, and a step has one; False lets DDP look for the
                unused ones.

        Raises:
            SetupError: CUDA is asked for and not there, or the strategy needs torchrun.
        """
        self.strategy, self._static = strategy, static
        self.rank, self.world, self.launched = 0, 1, "TORCHELASTIC_RUN_ID" in os.environ
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SetupError(f"device is {device}, but torch sees no CUDA device; use --device cpu")
        self.device = torch.device(device)
        if self.launched:
            self._join()
        elif strategy == "fsdp2":
            raise SetupError(
                "parallel is fsdp2, which divides the model among processes; start them with "
                "`torchrun --nproc-per-node N -m lapa_core ...`, or use ddp"
            )

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    @property
    def part(self) -> Part:
        """Which part of every joint batch is this process's."""
        return Part(rank=self.rank, world=self.world)

    def wrap(
        self,
        objective: nn.Module,
        *,
        compiled: bool = False,
        units: Sequence[nn.Module] | None = None,
        bf16: bool = False,
        recomputed: bool = False,
    ) -> nn.Module:
        """Move a module to the device and return what the loop calls; its weights stay where they are named.

        Weights of convolutions become channels-last, as the images are: gradients then have the layout of their
        weights, which DDP's buckets need and convolutions on CPUs run faster with. FSDP2 takes no such weights.

        Args:
            objective: what the loop calls.
            compiled: compile it; under FSDP2, and where units are given, unit by unit.
            units: what FSDP2 gathers at a time; by default the outermost blocks.
            bf16: under FSDP2, gather the weights in bfloat16.
            recomputed: keep no activations inside the units; compute them again in the backward pass.
        """
        if recomputed:
            recompute(units or blocks(objective))
        if self.world > 1:
            sync_batch_norm(objective)
        if self.launched and self.strategy == "fsdp2":
            parts = blocks(objective) if units is None else list(units)
            return _shard(objective, parts, self.device, compiled=compiled, bf16=bf16)
        to_master(objective, self.device)
        _channels_last(objective)
        if compiled:
            # Dynamo cuts the graph at DDP's buckets, which it cannot do where the graph is declared static.
            torch._dynamo.config.optimize_ddp = False
            for part in units or [objective]:
                part.compile(dynamic=False)
        return self._accelerator.prepare_model(objective) if self.launched else objective

    @contextmanager
    def adding(self, module: nn.Module, *, last: bool) -> Iterator[None]:
        """Let a backward pass add to the gradients; DDP's ranks exchange them in the last of a step only.

        FSDP2 exchanges them every time, because its gradients are divided only then.

        Args:
            module: what `wrap` returned.
            last: whether no further backward pass follows in this step.
        """
        if last or not self.launched or self.strategy == "fsdp2" or self.world == 1:
            yield
        else:
            with module.no_sync():  # type: ignore[operator]
                yield

    def mean(self, metrics: dict[str, float]) -> dict[str, float]:
        """Average metrics over the ranks; every rank must call with the same names."""
        if self.world == 1:
            return metrics
        values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=self._talk_device)
        dist.all_reduce(values)
        return dict(zip(metrics, (values / self.world).tolist(), strict=True))

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run a block on rank 0 before it runs on the others: caches, downloads."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def wait(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            dist.barrier()

    @property
    def _talk_device(self) -> torch.device:
        """Where tensors must lie that the ranks exchange: on the GPU with NCCL."""
        return self.device if self.device.type == "cuda" else torch.device("cpu")

    def _join(self) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

        # Where the graph is the same at every step, static_graph also finds the parameters that it never uses.
        options = DistributedDataParallelKwargs(
            static_graph=self._static, find_unused_parameters=not self._static
        )
        self._accelerator = Accelerator(
            cpu=self.device.type == "cpu",
            kwargs_handlers=[options, InitProcessGroupKwargs(timeout=PATIENCE)],
            mixed_precision="no",
        )
        self.device = self._accelerator.device
        self.rank, self.world = self._accelerator.process_index, self._accelerator.num_processes


def leave() -> None:
    """Leave the group of processes, if there is one: the last thing that a program does."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _channels_last(module: nn.Module) -> None:
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in module.parameters():
        if layout := layouts.get(weight.ndim):
            # Not `contiguous`: that leaves one-channel weights as they are, whose gradients come channels-last.
            weight.data = torch.empty_like(weight, memory_format=layout).copy_(weight.data)


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the outermost blocks: the members of module lists that lie in no other list."""
    found: list[nn.Module] = []
    for child in module.children():
        found += list(child) if isinstance(child, nn.ModuleList) else blocks(child)
    return found


def _shard(
    objective: nn.Module,
    units: Sequence[nn.Module],
    device: torch.device,
    *,
    compiled: bool,
    bf16: bool,
) -> nn.Module:
    """Divide a module among the ranks, unit by unit: no GPU ever holds all of it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # It warns of in-place changes of a block's output, which no model here makes.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if bf16:
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    for unit in units:
        to_master(unit, device)
        if compiled:
            unit.compile()
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    to_master(objective, device)
    fully_shard(objective, mesh=mesh, mp_policy=policy, ignored_params=_apart(objective, units))
    return objective


def _apart(objective: nn.Module, units: Sequence[nn.Module]) -> set[nn.Parameter]:
    """Return what stands still outside the units: it stays whole, so that it can be used outside a step."""
    inside = {id(parameter) for unit in units for parameter in unit.parameters()}
    return {
        parameter
        for parameter in objective.parameters()
        if not parameter.requires_grad and id(parameter) not in inside
    }


def to_master(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module to a device; what is trained becomes float32 there, tensor by tensor."""
    module.to(device)
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
    return module


def whole(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor with the parts of all ranks; every rank must call."""
    from torch.distributed.tensor import DTensor

    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def divided_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this rank's part of a whole tensor, divided and laid out in memory as another one is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
