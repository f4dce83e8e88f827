# SPDX-License-Identifier: Apache-2.0
"""True counts of the codes that training uses, the same on every rank.

Each assignment counts, not each batch in which a code appears (the release's way), and the counts are int64 buffers,
so they survive a save. A step's own counts are summed over the ranks before they join the total; until then they
lie in buffers that are zero whenever DistributedDataParallel copies rank 0's buffers to the others.

Shapes: B pairs, K tokens, N codes, J cells of the joint histogram.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lapa_core.laq.usage import CodeUsage, usage_of_counts

JOINT_CELLS = 65_521
"""Largest joint histogram; a prime, so that more tuples than this are spread evenly by their remainder."""


class UsageCounts(nn.Module):
    """Counts since the last reset: per token and code, and of whole tuples."""

    codes_KN: Tensor
    """Uses of each code by each token."""
    joint_J: Tensor
    """Uses of each tuple; of each remainder of tuples where there are more than `JOINT_CELLS`."""
    step_codes_KN: Tensor
    """This rank's uses since the last `merge`."""
    step_joint_J: Tensor
    """This rank's tuples since the last `merge`."""

    def __init__(self, tokens: int, codes: int, *, saved: bool = True):
        super().__init__()
        shapes = {"codes_KN": (tokens, codes), "joint_J": (min(codes**tokens, JOINT_CELLS),)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int64), persistent=saved)
            self.register_buffer(
                f"step_{name}", torch.zeros(shape, dtype=torch.int64), persistent=False
            )

    @torch.no_grad()
    def add(self, codes_BK: Tensor) -> None:
        """Count the codes of one batch of this rank, without waiting for the device."""
        ones_BK = torch.ones_like(codes_BK)
        self.step_codes_KN.scatter_add_(1, codes_BK.T, ones_BK.T)
        cell_B = torch.zeros_like(codes_BK[:, 0])
        for code_B in codes_BK.unbind(1):
            cell_B = (cell_B * self.codes_KN.shape[1] + code_B) % len(self.joint_J)
        self.step_joint_J.scatter_add_(0, cell_B, ones_BK[:, 0])

    @torch.no_grad()
    def merge(self) -> None:
        """Add what all ranks counted since the last merge."""
        for total, step in (
            (self.codes_KN, self.step_codes_KN),
            (self.joint_J, self.step_joint_J),
        ):
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(step)
            total += step
            step.zero_()

    def read(self) -> CodeUsage | None:
        """Return the usage since the last reset; None when nothing was counted."""
        codes_KN = self.codes_KN.cpu().numpy()
        return usage_of_counts(codes_KN, self.joint_J.cpu().numpy()) if codes_KN.any() else None

    def reset(self) -> None:
        """Forget the counts."""
        self.codes_KN.zero_()
        self.joint_J.zero_()
