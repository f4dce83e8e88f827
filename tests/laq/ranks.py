# SPDX-License-Identifier: Apache-2.0
"""What each rank of `test_ranks.py` runs: importable by a fresh process, and free of pytest."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lapa_core.laq.checkpoint import build_laq
from lapa_core.laq.config import PatchLaqConfig, QuantiserName
from tests.toy import TOY_PATCH

STEPS = 50
JOINT_BATCH = 8


class Loss(nn.Module):
    """The training loss as one module, as DistributedDataParallel wants it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x0, x1):
        prediction = self.model.predict(x0, x1, x0)
        return F.mse_loss(prediction, self.model.target(x1)) + self.model.auxiliary_loss()


def toy_config(quantiser: QuantiserName) -> PatchLaqConfig:
    return replace(TOY_PATCH, patch_px=8, quantiser=quantiser)


def joint_batch(step: int) -> tuple[Tensor, Tensor]:
    """A bright square on a dark frame, and the same elsewhere."""
    generator = torch.Generator().manual_seed(step)
    frames = torch.full((2, JOINT_BATCH, 3, 32, 32), 0.2)
    corner = torch.randint(0, 24, (2, JOINT_BATCH, 2), generator=generator)
    for t in range(2):
        for i in range(JOINT_BATCH):
            y, x = corner[t, i].tolist()
            frames[t, i, :, y : y + 8, x : x + 8] = 0.9
    return frames[0], frames[1]


def run(quantiser: QuantiserName, rank: int, world: int) -> tuple[dict[str, Tensor], float]:
    """Train for 50 steps on this rank's part of every joint batch; return the state and how many codes were revived."""
    torch.manual_seed(0)
    model = build_laq(toy_config(quantiser)).train()
    loss_of: nn.Module = Loss(model)
    if world > 1:
        loss_of = DistributedDataParallel(loss_of)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    revived = 0.0
    part = slice(rank * JOINT_BATCH // world, (rank + 1) * JOINT_BATCH // world)
    for step in range(STEPS):
        model.set_step(seed=7, step=step, rank=rank, world=world)
        x0, x1 = joint_batch(step)
        optimizer.zero_grad()
        loss_of(x0[part], x1[part]).backward()
        optimizer.step()
        metrics = model.after_step(step, STEPS)
        revived += metrics.get("codes/revived", 0.0) if step and step % 10 == 0 else 0.0
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, revived


def main(rank: int, world: int, port: int, out: str) -> None:
    """Run every quantiser on this rank and save what came of it."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    try:
        torch.save({name: run(name, rank, world) for name in ("nsvq", "vq_ema")}, f"{out}/{rank}")
    finally:
        dist.destroy_process_group()
