# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation with the statistics of all ranks, also on CPUs, where torch's SyncBatchNorm refuses to run."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverRanks(torch.autograd.Function):
    """All ranks get the sum; each rank's loss depends on every rank's input, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


class SyncedBatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d` on (B, D) whose batch is the joint batch of all ranks, which have equal parts of it."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise with the joint mean and variance in training, with the running ones otherwise."""
        if not self.training:
            return super().forward(input)
        sums_2D = torch.stack([input.sum(dim=0), input.square().sum(dim=0)])
        count = len(input) * dist.get_world_size()
        mean_D, square_D = _SumOverRanks.apply(sums_2D) / count
        variance_D = (square_D - mean_D.square()).clamp_min(0.0)
        self._remember(mean_D.detach(), variance_D.detach() * count / max(count - 1, 1))
        normal_BD = (input - mean_D) * (variance_D + self.eps).rsqrt()
        return normal_BD * self.weight + self.bias if self.affine else normal_BD

    @torch.no_grad()
    def _remember(self, mean_D: Tensor, variance_D: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_D, self.momentum)
        self.running_var.lerp_(variance_D, self.momentum)


def sync_batch_norm(module: nn.Module) -> None:
    """Replace every `nn.BatchNorm1d` inside a module by the synchronised one; names of weights stay."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm1d:
            synced = SyncedBatchNorm1d(
                child.num_features, child.eps, child.momentum, affine=child.affine
            ).to(next(child.buffers()).device)
            synced.load_state_dict(child.state_dict())
            setattr(module, name, synced.train(child.training))
        else:
            sync_batch_norm(child)
