# SPDX-License-Identifier: Apache-2.0
"""The release's loss of latent pretraining."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lapa_core.errors import ContractError
from lapa_core.vla.config import PretrainConfig, TrunkConfig
from lapa_core.vla.lwm.prompt import closing, opening, prompt_ids, tag
from lapa_core.vla.lwm.text_loss import tail_logits
from lapa_core.vla.objective import PretrainObjective
from lapa_core.vla.small import SmallVla
from lapa_core.vla.words import Vocabulary
from tests.vla.lwm_toys import TASKS, as_release, release_forward, toy_inputs, toy_lwm

CODES = torch.tensor([[2, 0, 7, 1], [1, 1, 2, 3], [4, 5, 6, 7]])


def test_the_text_head_is_trained_on_tags_end_and_by_a_slip_on_the_codes_places():
    model = toy_lwm()
    tail = tail_logits(model, model.text, toy_inputs(model), CODES)
    expected = [*tag(model.text, "latent"), 0, 0, 0, 0, *closing(model.text, "latent")]
    assert tail.text_BS.tolist() == [expected] * 3
    assert tail.text_BSN.shape == (3, len(expected), model.config.vocab)


def test_one_forward_gives_both_heads_logits():
    model = toy_lwm()
    inputs = toy_inputs(model)
    with torch.no_grad():
        tail = tail_logits(model, model.text, inputs, CODES)
        alone = model.latent_logits(inputs, CODES)
    torch.testing.assert_close(tail.latent_BKN, alone, atol=1e-4, rtol=1e-4)

    params = as_release(model)
    row, text = 1, model.text
    opened, closed = opening(text, "latent"), closing(text, "latent")
    wte, vte, dte = (
        torch.from_numpy(params["transformer", table, "embedding"])
        for table in ("wte", "vte", "dte")
    )
    embedded = torch.cat(
        [wte[prompt_ids(text, TASKS[row])], vte[inputs["vision"][row]], wte[opened], dte[CODES[row]],
         wte[closed[:-1]]]
    )  # fmt: skip
    config = model.config
    states = release_forward(
        params, embedded.numpy(), config.heads, config.rope_theta, rounded=config.rope_bf16
    )
    expected = states[-tail.text_BS.shape[1] :] @ params["lm_head", "kernel"]
    torch.testing.assert_close(
        tail.text_BSN[row].double(), torch.from_numpy(expected), atol=1e-3, rtol=1e-4
    )


def test_the_loss_is_99_parts_codes_and_one_part_text():
    model = toy_lwm()
    inputs = toy_inputs(model)
    with torch.no_grad():
        tail = tail_logits(model, model.text, inputs, CODES)
    per_code = F.cross_entropy(tail.latent_BKN.transpose(1, 2), CODES, reduction="none")
    per_text = F.cross_entropy(tail.text_BSN.transpose(1, 2), tail.text_BS, reduction="none")
    expected = 0.99 * per_code.mean(1).mean() + 0.01 * per_text.mean(1).mean()
    assert not model.heads["text"].weight.requires_grad
    objective = PretrainObjective(model, torch.zeros(8, 2), mean_weight=0.0, text_weight=0.01)
    losses = objective(inputs, {"codes": CODES})
    torch.testing.assert_close(losses["loss"], expected)
    torch.testing.assert_close(losses["text"], per_text.mean())
    losses["loss"].backward()
    assert model.heads["text"].weight.grad.abs().sum() > 0
    assert model.heads["vision"].weight.grad is None


def test_a_model_that_learns_no_text_refuses_the_weight():
    small = SmallVla(TrunkConfig(), Vocabulary.fit(["go"]))
    small.give_latent_head(4, 8)
    with pytest.raises(ContractError, match="text_weight is for LWM"):
        PretrainObjective(small, torch.zeros(8, 2), mean_weight=0.0, text_weight=0.01)
    with pytest.raises(ContractError, match="below 1"):
        PretrainConfig(data=Path("data"), labels=Path("labels"), text_weight=1.0)
