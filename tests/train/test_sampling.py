# SPDX-License-Identifier: Apache-2.0
"""Sampling, schedules and augmentation: pure functions of (seed, step)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lapa_core.train.augment import random_light, random_shift, to_float
from lapa_core.train.sampling import batch_indices, seed_step
from lapa_core.train.schedule import cosine_factor


def test_an_epoch_sees_every_sample_once_and_the_next_one_in_another_order():
    epochs = [
        np.concatenate([batch_indices(10, 5, 0, step) for step in steps])
        for steps in ((0, 1), (2, 3))
    ]
    assert all(sorted(order) == list(range(10)) for order in epochs)
    assert not np.array_equal(*epochs)
    assert np.array_equal(batch_indices(10, 5, 0, 3), batch_indices(10, 5, 0, 3))
    assert sorted(batch_indices(3, 64, 0, 7)) == [0, 1, 2]


def test_the_generator_of_a_step_depends_on_seed_and_step_only():
    def draw(seed, step):
        seed_step(seed, step)
        return torch.rand(3).tolist()

    first = draw(1, 5)
    torch.rand(100)
    assert draw(1, 5) == first
    assert draw(1, 6) != first
    assert draw(2, 5) != first


def test_the_schedule_warms_up_and_ends_near_zero():
    factors = [cosine_factor(step, 100, warmup_steps=10) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.001


def test_a_shift_moves_the_picture_and_nothing_else():
    torch.manual_seed(0)
    images = torch.rand(6, 3, 16, 16)
    shifted = random_shift(images, 2)
    assert shifted.shape == images.shape
    inner = [image[:, 4:-4, 4:-4] for image in shifted]
    for image, middle in zip(images, inner, strict=True):
        windows = [image[:, y : y + 8, x : x + 8] for y in range(2, 7) for x in range(2, 7)]
        assert sum(torch.equal(window, middle) for window in windows) == 1
    assert random_shift(images, 0) is images


def test_light_keeps_the_ratio_of_differences():
    torch.manual_seed(0)
    images = torch.rand(4, 3, 8, 8)
    lit = random_light(images, 0.2)
    gain = (lit[:, 0, 0, 0] - lit[:, 1, 1, 1]) / (images[:, 0, 0, 0] - images[:, 1, 1, 1])
    assert ((gain > 0.79) & (gain < 1.21)).all()
    assert gain.std() > 0.01


def test_frames_become_floats_without_changing_place():
    frames = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3)
    assert to_float(frames)[1, 2, 3, 0] == pytest.approx(frames[1, 3, 0, 2].item() / 255)
