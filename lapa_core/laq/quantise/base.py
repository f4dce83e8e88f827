# SPDX-License-Identifier: Apache-2.0
"""What every quantiser is: tokens in, codes out, and a codebook that is watched and healed during training.

Shapes: B pairs, K tokens per pair, D numbers per token, N codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lapa_core.laq.quantise.counts import UsageCounts
from lapa_core.laq.usage import CodeUsage, warn_if_collapsed

DEAD_SHARE = 0.1
"""A code used less than this share of an equal share counts as dead (the release: a share of batches, facts 1.6)."""
HEALING_END = 0.9
"""Share of training after which codes stay where they are, so that the last ones still get trained."""
FIRST_ALARM_STEP = 100
"""Before this step few codes are in use in any run."""


class Quantised(NamedTuple):
    """Result of a quantiser."""

    vectors_BKD: Tensor
    """What the decoder gets: the codes' vectors, or in training what lets gradients through in their stead."""
    codes_BK: Tensor
    """Code of every token, int64."""


class Quantiser(nn.Module, ABC):
    """One codebook, implicit or not, that all tokens share."""

    quantises_in_training: bool = True
    """Whether codes exist during training; if not, `fit` makes them afterwards."""

    def __init__(self, *, codes: int, dim: int, tokens: int, save_counts: bool = True):
        super().__init__()
        self.codes = codes
        self.dim = dim
        self.counts = UsageCounts(tokens, codes, saved=save_counts)
        self._metrics: dict[str, float] = {}
        self._alarmed = False
        self._newest_MD = torch.zeros(0, dim)

    def forward(self, x_BKD: Tensor) -> Quantised:
        """Quantise tokens (B, K, D) in float32, whatever the precision around it, and count their codes in training."""
        with torch.autocast(x_BKD.device.type, enabled=False):
            quantised = self.quantise(x_BKD.float())
        if self.training and self.quantises_in_training:
            self.counts.add(quantised.codes_BK)
            self._newest_MD = x_BKD.detach().float().flatten(0, 1)
        return quantised

    @torch.no_grad()
    def assign(self, x_BKD: Tensor) -> Tensor:
        """Return the code of every token (B, K), without noise, counting or any other trace."""
        with torch.autocast(x_BKD.device.type, enabled=False):
            return self.nearest(x_BKD.float())

    @abstractmethod
    def quantise(self, x_BKD: Tensor) -> Quantised:
        """Quantise float32 tokens, in training with gradients."""

    @abstractmethod
    def nearest(self, x_BKD: Tensor) -> Tensor:
        """Return the code of every float32 token (B, K) int64."""

    @abstractmethod
    def centres(self) -> Tensor:
        """Return the vector of every code (N, D)."""

    def vectors(self, codes_BK: Tensor) -> Tensor:
        """Return the vectors (B, K, D) of these codes."""
        return self.centres()[codes_BK]

    def auxiliary_loss(self) -> Tensor:
        """Return what the last `quantise` adds to the loss."""
        return torch.zeros((), device=self.counts.codes_KN.device)

    def set_step(self, *, seed: int, step: int, rank: int, world: int) -> None:
        """Say which step comes next, for quantisers that draw noise."""

    def fit(self, vectors_BKD: Tensor, seed: int) -> None:
        """Make the codebook after training, where `quantises_in_training` is False."""

    def revive(self, dead_N: Tensor, fresh_RD: Tensor) -> None:
        """Put the dead codes (N, bool, on the CPU) where these tokens are, one each (R, D)."""

    def after_step(self, step: int, total_steps: int) -> dict[str, float]:
        """Join the ranks' counts; when due, watch and heal the codebook. The same happens on every rank.

        Due is every 10 steps up to 100, then every 100. Healing goes on until the last tenth of training; the
        release stops for good after step 5000, and its users see it collapse (facts, section 1.6).

        Returns:
            Metrics of the newest window between two such steps, for the log.
        """
        if not self.quantises_in_training:
            return {}
        self.counts.merge()
        every = 10 if step < 100 else 100
        if step == 0 or step % every:
            return self._metrics
        usage = self.counts.read()
        if usage is None:
            return self._metrics
        self._metrics = {
            f"perplexity/token{i}": p for i, p in enumerate(usage.perplexity_per_token)
        }
        self._metrics["codes/joint"] = float(usage.joint_count)
        self._alarm(usage, step)
        healing = step <= HEALING_END * total_steps
        self._metrics["codes/revived"] = float(self.revive_dead(step)) if healing else 0.0
        self.counts.reset()
        return self._metrics

    @torch.no_grad()
    def revive_dead(self, seed: int) -> int:
        """Move codes that the counts call dead onto tokens of the newest joint batch; return how many.

        A code beside a used one stays dead when all tokens lie close together and far from both, as they do at the
        start: the nearer of the two takes them all. A code on a token takes that token and its neighbours.
        """
        used_N = self.counts.codes_KN.sum(dim=0).cpu()
        dead_N = used_N < DEAD_SHARE * used_N.sum() / self.codes
        count = int(dead_N.sum())
        if count:
            tokens_MD = self._newest_tokens()
            generator = torch.Generator().manual_seed(seed)
            order_M = torch.randperm(len(tokens_MD), generator=generator)
            repeats = -(-count // len(order_M))
            self.revive(dead_N, tokens_MD[order_M.repeat(repeats)[:count].to(tokens_MD.device)])
        return count

    def _newest_tokens(self) -> Tensor:
        """Return the tokens (M, D) of the newest batch of all ranks, the same and in one order on each."""
        tokens_MD = self._newest_MD
        if not (dist.is_available() and dist.is_initialized()):
            return tokens_MD
        parts = [torch.empty_like(tokens_MD) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tokens_MD.contiguous())
        return torch.cat(parts)

    def _alarm(self, usage: CodeUsage, step: int) -> None:
        """Warn once, on rank 0, when codes collapse, and again only after they had recovered."""
        grouped = dist.is_available() and dist.is_initialized()
        if not usage.collapsed:
            self._alarmed = False
        elif not self._alarmed and step >= FIRST_ALARM_STEP and not (grouped and dist.get_rank()):
            self._alarmed = warn_if_collapsed(usage, f"at step {step}")
