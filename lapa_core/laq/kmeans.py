# SPDX-License-Identifier: Apache-2.0
"""K-means with k-means++ seeding, seeded by the caller and independent of torch's global generator."""

from __future__ import annotations

import torch
from torch import Tensor


def kmeans(points_BD: Tensor, clusters: int, *, seed: int, iterations: int = 50) -> Tensor:
    """Return cluster centres (clusters, D); fewer when there are fewer distinct points."""
    generator = torch.Generator().manual_seed(seed)
    centres_ND = points_BD[torch.randint(len(points_BD), (1,), generator=generator)]
    while len(centres_ND) < clusters:
        distance_B = _distances(points_BD, centres_ND).min(dim=1).values.square()
        if float(distance_B.sum()) <= 0.0:
            break
        chosen = torch.multinomial(distance_B[: 2**24], 1, generator=generator)
        centres_ND = torch.cat([centres_ND, points_BD[chosen]])
    for _ in range(iterations):
        nearest_B = _distances(points_BD, centres_ND).argmin(dim=1)
        counts_N = torch.bincount(nearest_B, minlength=len(centres_ND))
        sums_ND = torch.zeros_like(centres_ND).index_add_(0, nearest_B, points_BD)
        moved_ND = torch.where(
            counts_N[:, None] > 0, sums_ND / counts_N.clamp(min=1)[:, None], centres_ND
        )
        if torch.equal(moved_ND, centres_ND):
            break
        centres_ND = moved_ND
    return centres_ND


def _distances(points_BD: Tensor, centres_ND: Tensor) -> Tensor:
    # Not by matrix products, which leave a point at a distance from itself: each of its copies became a centre.
    return torch.cdist(points_BD, centres_ND, compute_mode="donot_use_mm_for_euclid_dist")
