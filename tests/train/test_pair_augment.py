# SPDX-License-Identifier: Apache-2.0
"""Shared augmentation: both frames of a pair alike, pairs differently, ranks like one process."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lapa_core.train.pair_augment import PairAugment

ALL = PairAugment(shift_px=3, crop=0.2, light=0.2, colour=0.1)


def images(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["shift_px", "crop", "light", "colour"])
def test_both_frames_change_alike_and_pairs_differently(name):
    augment = PairAugment(**{name: getattr(ALL, name)})
    same = images(1).expand(6, -1, -1, -1)
    torch.manual_seed(0)
    first, later = augment(same, same)
    assert torch.equal(first, later)
    assert first.shape == same.shape
    assert len({tuple(image.flatten().tolist()) for image in first}) > 3
    assert first.min() >= 0
    assert first.max() <= 1


def test_a_shift_moves_whole_pixels():
    torch.manual_seed(0)
    original = images()
    shifted, _ = PairAugment(shift_px=2)(original, original)
    padded = torch.nn.functional.pad(original, (2, 2, 2, 2), mode="replicate")
    for before, after in zip(padded, shifted, strict=True):
        views = [before[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
        assert min((after - view).abs().max() for view in views) < 1e-4


def test_ranks_side_by_side_are_one_process():
    x0, x1 = images(), images().flip(0)
    torch.manual_seed(5)
    joint = ALL(x0, x1)
    for rank in range(2):
        torch.manual_seed(5)
        part = slice(3 * rank, 3 * rank + 3)
        mine = replace(ALL, rank=rank, world=2)(x0[part], x1[part])
        assert all(torch.equal(m, j[part]) for m, j in zip(mine, joint, strict=True))


def test_without_augmentation_nothing_is_drawn():
    torch.manual_seed(0)
    x = images()
    assert PairAugment()(x, x) == (x, x)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)
