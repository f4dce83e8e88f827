# SPDX-License-Identifier: Apache-2.0
"""The rotary table: its rounding, and the change from neighbouring pairs to halves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lapa_core.vla.lwm.release_names import ReleaseTensor
from lapa_core.vla.lwm.rope import rotary_table, rotate
from tests.vla.lwm_toys import nearest_bf16

THETA = 5e7


def test_the_exact_table_is_that_of_the_formula():
    positions = torch.tensor([[0, 1, 7, 383]])
    cosines, sines = rotary_table(positions, 128, THETA, rounded=False)
    angles = np.outer([0, 1, 7, 383], THETA ** (-np.arange(0, 128, 2) / 128))
    angles = np.concatenate([angles, angles], axis=1)
    np.testing.assert_allclose(cosines[0, 0], np.cos(angles), atol=2e-5)
    np.testing.assert_allclose(sines[0, 0, :, :64], -np.sin(angles[:, :64]), atol=2e-5)
    np.testing.assert_allclose(sines[0, 0, :, 64:], np.sin(angles[:, 64:]), atol=2e-5)


def test_the_rounded_table_rounds_angle_and_sine():
    positions = np.arange(384)
    cosines, sines = rotary_table(torch.from_numpy(positions)[None], 128, THETA, rounded=True)
    rates = (THETA ** (-np.arange(0, 128, 2) / 128)).astype(np.float32).astype(np.float64)
    angles = nearest_bf16(np.outer(positions, rates).astype(np.float32))
    np.testing.assert_array_equal(cosines[0, 0, :, :64], nearest_bf16(np.cos(angles)))
    np.testing.assert_array_equal(sines[0, 0, :, 64:], nearest_bf16(np.sin(angles)))


@pytest.mark.parametrize(
    ("first", "last", "most"), [(0, 128, 0.25), (129, 256, 0.5), (257, 384, 1.0)]
)
def test_the_rounding_is_as_large_as_the_facts_say(first, last, most):
    """facts/lapa.md 2.1: an angle is off by up to 1 rad where latent and action tokens sit."""
    positions = torch.arange(first, last + 1)[None]
    exact, rounded = (
        torch.complex(*rotary_table(positions, 128, THETA, rounded=flag)) for flag in (False, True)
    )
    off = (rounded / exact).angle().abs().max().item()
    assert 0.8 * most < off <= most + 0.01


def test_halves_of_converted_weights_give_the_logits_of_neighbouring_pairs():
    rng = np.random.default_rng(0)
    heads, width, length = 2, 16, 5
    x_QD = rng.normal(size=(length, width))
    wq, wk = rng.normal(size=(2, width, width))
    angles = np.outer(np.arange(length), THETA ** (-np.arange(0, 8, 2) / 8))

    def neighbours(weight):
        pairs = (x_QD @ weight).reshape(length, heads, 4, 2)
        cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
        first, second = pairs[..., 0], pairs[..., 1]
        return np.stack([first * cosine - second * sine, first * sine + second * cosine], -1)

    expected = np.einsum("qhpi,khpi->hqk", neighbours(wq), neighbours(wk))

    place = ReleaseTensor(name="q", shape=(width, width), key=("wq",), layout="rotary")
    q, k = (
        (torch.from_numpy(x_QD) @ place.convert(torch.from_numpy(w), heads).T)
        .view(1, length, heads, 8)
        .transpose(1, 2)
        for w in (wq, wk)
    )
    table = rotary_table(torch.arange(length)[None], 8, THETA, rounded=False)
    q, k = (rotate(part, table) for part in (q, k))
    np.testing.assert_allclose((q @ k.transpose(2, 3))[0].numpy(), expected, atol=1e-5)
