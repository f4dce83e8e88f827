# SPDX-License-Identifier: Apache-2.0
"""Words, trunk and heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import DataError
from lapa_core.vla.config import TrunkConfig
from lapa_core.vla.losses import BinScale, action_loss, soft_targets
from lapa_core.vla.small import ActionHead
from lapa_core.vla.trunk import FilmTrunk
from lapa_core.vla.words import PAD, UNKNOWN, Vocabulary

TRUNK = TrunkConfig(image_px=32, width=8, blocks=1, keypoints=4, text_dim=8, features=16)


@pytest.fixture
def bins():
    rng = np.random.default_rng(0)
    actions = np.zeros((200, 7))
    actions[:, :2] = rng.normal(0, 0.02, (200, 2))
    actions[:, 6] = rng.integers(0, 2, 200)
    return ActionBins.fit(actions, 16)


def test_words_are_case_and_punctuation_free_and_unknown_ones_marked():
    words = Vocabulary.fit(["Push the red block!", "push it"])
    assert words.encode("PUSH, the frob.", 5).tolist() == [
        words.words.index("push"), words.words.index("the"), UNKNOWN, PAD, PAD,
    ]  # fmt: skip
    assert words.encode("", 3).tolist() == [UNKNOWN, PAD, PAD]
    with pytest.raises(DataError, match="twice"):
        Vocabulary(["<pad>", "<unk>", "a", "a"])


def test_order_of_words_matters_and_padding_does_not():
    torch.manual_seed(0)
    trunk = FilmTrunk(TRUNK, 10).eval()
    image = torch.rand(1, 3, 32, 32)
    one = trunk(image, torch.tensor([[2, 3, 4, 0]]))
    other = trunk(image, torch.tensor([[4, 3, 2, 0]]))
    padded = trunk(image, torch.tensor([[2, 3, 4, 0, 0, 0]]))
    assert not torch.allclose(one, other)
    torch.testing.assert_close(one, padded)


def test_frames_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    trunk = FilmTrunk(TRUNK, 10).eval()
    images, words = torch.rand(3, 3, 32, 32), torch.tensor([[2, 3], [4, 0], [2, 3]])
    together = trunk(images, words)
    alone = torch.cat([trunk(images[i : i + 1], words[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_a_bin_that_does_not_exist_is_never_chosen(bins):
    torch.manual_seed(0)
    head = ActionHead(16, bins)
    torch.nn.init.normal_(head.linear.weight, std=10.0)
    chosen = head(torch.randn(500, 16)).argmax(dim=-1).numpy()
    assert (chosen < bins.counts).all()
    for row in chosen[:20]:
        bins.decode(row)


def test_targets_stay_inside_their_dimension_and_the_loss_has_a_gradient(bins):
    mask = torch.from_numpy(bins.mask)
    labels = torch.from_numpy(bins.encode(np.zeros((4, 7))))
    for width in (0.0, 1.5):
        target = soft_targets(labels, mask, width)
        torch.testing.assert_close(target.sum(dim=-1), torch.ones(4, 7))
        assert (target[:, ~mask] == 0).all()
        assert torch.equal(target.argmax(dim=-1), labels)
    head = ActionHead(16, bins)
    loss = action_loss(head(torch.randn(4, 16)), labels, BinScale(bins), 1.0, 2.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(head.linear.weight.grad).all()


def test_a_near_miss_costs_less_than_a_far_one(bins):
    scale = BinScale(bins)
    labels = torch.zeros(1, 7, dtype=torch.long)

    def loss_when_sure_of(bin_index):
        logits = torch.full((1, *scale.mask_AQ.shape), -10.0)
        logits[:, :2, bin_index] = 10.0
        logits[:, 2:, 0] = 10.0
        return action_loss(
            logits.masked_fill(~scale.mask_AQ, -torch.inf), labels, scale, 0.0, 1.0
        ).item()

    assert loss_when_sure_of(0) < loss_when_sure_of(1) < loss_when_sure_of(9)
