# SPDX-License-Identifier: Apache-2.0
"""Two processes train one codebook: identical on both, and that of one process on the joint batch."""

from __future__ import annotations

import socket

import pytest
import torch
import torch.multiprocessing as mp

from tests.laq import ranks

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}
"""Two ranks add up the same gradients in another order, which differs by float32 rounding and grows over 50 steps."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(state, revived codes) of both ranks and of one process, per quantiser."""
    out = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(ranks.main, args=(2, port, str(out)), nprocs=2)
    return [torch.load(out / str(rank)) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("quantiser", ["nsvq", "vq_ema"])
def test_after_fifty_steps_with_revival_all_hold_the_same(trained, quantiser):
    (first, revived), (second, revived_too) = (rank[quantiser] for rank in trained)
    alone, revived_alone = ranks.run(quantiser, 0, 1)
    assert revived == revived_too == revived_alone > 0, "the test is void if no code died"
    assert all(torch.equal(first[name], second[name]) for name in first)
    codebook = "quantiser.codebooks" if quantiser == "nsvq" else "quantiser.codebook_ND"
    torch.testing.assert_close(first[codebook], alone[codebook], **TOLERANCE)
    assert torch.equal(first["quantiser.counts.codes_KN"], alone["quantiser.counts.codes_KN"])
    assert int(first["quantiser.counts.codes_KN"].sum()) == 9 * ranks.JOINT_BATCH * 4
    for name in first:
        torch.testing.assert_close(first[name], alone[name], **TOLERANCE)
