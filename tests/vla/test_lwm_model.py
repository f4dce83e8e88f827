# SPDX-License-Identifier: Apache-2.0
"""The model against the release's arithmetic written out plainly; padding, masks, cache, number formats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.vla.checkpoint import POLICY, load_vla, save_vla
from lapa_core.vla.decode.choose import Sample, greedy
from lapa_core.vla.lwm.config import LWM_DEBUG, LwmConfig, VqganConfig
from lapa_core.vla.lwm.model import LwmVla
from lapa_core.vla.lwm.prompt import opening, prompt_ids
from tests.vla.lwm_toys import (
    CODES,
    TASKS,
    as_release,
    release_forward,
    toy_bins,
    toy_inputs,
    toy_lwm,
)

KEYS = {"latent": ("dte", "delta_head"), "action": ("ate", "action_head")}


@pytest.fixture(scope="module")
def lwm():
    """Not to be changed."""
    return toy_lwm()


@pytest.fixture(scope="module")
def inputs(lwm):
    return toy_inputs(lwm)


def release_logits(model, inputs, row, head, ids):
    """Logits (K, N) of one row, from the release's keys and layouts, with no padding at all."""
    params = as_release(model)
    table, out = KEYS[head]
    pieces = [
        (("transformer", "wte", "embedding"), prompt_ids(model.text, TASKS[row])),
        (("transformer", "vte", "embedding"), [*inputs["vision"][row, :-1].tolist(), 33]),
        (("transformer", "wte", "embedding"), opening(model.text, head)),
        (("transformer", table, "embedding"), ids[:-1]),
    ]
    embedded = np.concatenate([params[key][np.array(ids, int)] for key, ids in pieces])
    config = model.config
    states = release_forward(
        params, embedded, config.heads, config.rope_theta, rounded=config.rope_bf16
    )
    return states[-len(ids) :] @ params[out, "kernel"]


@pytest.mark.parametrize("rounded", [False, True])
def test_logits_of_a_padded_batch_are_the_releases_without_padding(inputs, rounded):
    lwm = toy_lwm(rope_bf16=rounded)
    codes = torch.randint(CODES, (3, 4), generator=torch.Generator().manual_seed(2))
    bins = torch.arange(21).view(3, 7) % 2
    with torch.no_grad():
        latent, action = lwm.latent_logits(inputs, codes), lwm.action_logits(inputs, bins)
    there = toy_bins().mask
    assert (action.numpy()[:, ~there] == -np.inf).all()
    for row in range(len(TASKS)):
        expected = release_logits(lwm, inputs, row, "latent", codes[row].tolist())
        np.testing.assert_allclose(latent[row], expected, atol=1e-4, rtol=1e-4)
        expected = release_logits(lwm, inputs, row, "action", bins[row].tolist())
        np.testing.assert_allclose(
            action[row].numpy()[there], expected[:, : there.shape[1]][there], atol=1e-4, rtol=1e-4
        )


def test_padding_changes_no_position_and_no_logit(lwm, inputs):
    """In training prompts are padded to a few tokens, in evaluation to `max_text`; one instruction alone needs less."""
    codes = torch.zeros(3, 4, dtype=torch.int64)
    lwm.train()
    short = toy_inputs(lwm)
    lwm.eval()
    assert short["text"].shape[1] < inputs["text"].shape[1] == lwm.config.max_text
    positions = lwm.positions(inputs, "latent")
    for row, task in enumerate(TASKS):
        own = len(prompt_ids(lwm.text, task)) + 17 + len(opening(lwm.text, "latent"))
        assert positions[row, -own:].tolist() == list(range(own))
    with torch.no_grad():
        torch.testing.assert_close(
            lwm.latent_logits(short, codes), lwm.latent_logits(inputs, codes), atol=2e-4, rtol=1e-4
        )


def test_a_token_sees_the_tokens_before_it_and_none_behind(lwm, inputs):
    codes = torch.zeros(3, 4, dtype=torch.int64)
    changed = codes.clone()
    changed[:, 1] = 5
    with torch.no_grad():
        before, after = lwm.latent_logits(inputs, codes), lwm.latent_logits(inputs, changed)
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert ((before[:, 2:] - after[:, 2:]).abs().amax(-1) > 1e-3).all()


def test_frame_and_instruction_and_tag_all_reach_the_answer(lwm, inputs):
    codes = torch.zeros(3, 4, dtype=torch.int64)
    other = {**inputs, "vision": inputs["vision"].clone()}
    other["vision"][:, 0] = (other["vision"][:, 0] + 1) % 32
    said = toy_inputs(lwm, (TASKS[1], TASKS[2], TASKS[0]))
    swapped = {**inputs, "open_latent": inputs["open_action"]}
    with torch.no_grad():
        logits = lwm.latent_logits(inputs, codes)
        for changed in (other, {**said, "vision": inputs["vision"]}, swapped):
            assert (logits - lwm.latent_logits(changed, codes)).abs().amax(dim=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("head", ["latent", "action"])
def test_cached_decoding_is_the_full_forward_token_by_token(lwm, inputs, head):
    logits_of = lwm.latent_logits if head == "latent" else lwm.action_logits
    tokens = 4 if head == "latent" else 7
    ids = lwm.decode(inputs, head, greedy)
    assert ids.shape == (3, tokens)
    with torch.no_grad():
        for k in range(tokens):
            so_far = torch.zeros_like(ids)
            so_far[:, :k] = ids[:, :k]
            assert torch.equal(logits_of(inputs, so_far)[:, k].argmax(-1), ids[:, k])
    if head == "action":
        assert (ids.numpy() < toy_bins().counts).all()


def test_code_2_ends_nothing(lwm, inputs):
    """In the release 2 is also the end of a sequence, after which only zeros come (facts/lapa.md 2.7)."""
    ids = lwm.decode(inputs, "latent", lambda logits_BN: torch.full_like(logits_BN[:, 0], 2).long())
    assert ids.tolist() == [[2] * 4] * 3


def test_sampling_draws_no_bin_that_is_not_there(lwm, inputs):
    choose = Sample(torch.Generator().manual_seed(0), temperature=100.0)
    drawn = torch.cat([lwm.decode(inputs, "action", choose) for _ in range(10)]).numpy()
    assert (drawn < toy_bins().counts).all()
    assert (drawn[:, 5] == 0).all()


def test_the_stream_is_float32_over_the_prompt_and_bfloat16_in_a_step():
    model = toy_lwm(dtype="bfloat16")
    for module in (model.tables, model.layers, model.norm, model.heads):
        module.to(torch.bfloat16)
    seen = []
    model.layers[1].register_forward_pre_hook(
        lambda _, args: seen.append((args[0].shape[1] > 1, args[0].dtype))
    )
    inside = []
    model.layers[1].mlp.register_forward_pre_hook(lambda _, args: inside.append(args[0].dtype))
    model.decode(toy_inputs(model), "latent", greedy)
    assert set(seen) == {(True, torch.float32), (False, torch.bfloat16)}
    assert set(inside) == {torch.bfloat16}
    narrow = toy_lwm(dtype="bfloat16", residual_fp32=False)
    narrow.layers[1].register_forward_pre_hook(lambda _, args: seen.append((True, args[0].dtype)))
    seen.clear()
    narrow.latent_logits(toy_inputs(narrow), torch.zeros(3, 4, dtype=torch.int64))
    assert {dtype for _, dtype in seen} == {torch.bfloat16}


def test_bfloat16_computing_over_float32_weights_is_that_over_bfloat16_weights():
    """Training keeps float32 weights and computes in bfloat16; a policy holds bfloat16 weights."""
    model, codes = toy_lwm(dtype="bfloat16"), torch.zeros(3, 4, dtype=torch.int64)
    inputs = toy_inputs(model)
    with torch.no_grad():
        cast = model.latent_logits(inputs, codes)
        exact = toy_lwm(dtype="float32").latent_logits(inputs, codes)
        model.to(torch.bfloat16)
        stored = model.latent_logits(inputs, codes)
    torch.testing.assert_close(cast, stored)
    off = (cast - exact).abs().mean()
    assert 0 < off < 0.1 * exact.std()


def test_fresh_heads_learn_and_what_no_loss_reaches_stands_still():
    torch.manual_seed(0)
    model = LwmVla.start(LWM_DEBUG, TASKS)
    model.give_latent_head(4, CODES)
    for table in (model.tables["latent"], model.heads["latent"]):
        assert 0.01 < table.weight.std() < 0.03
    codes = torch.tensor([[2, 0, 7, 1], [1, 1, 2, 3], [4, 5, 6, 7]])
    inputs = toy_inputs(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(
            model.latent_logits(inputs, codes).flatten(0, 1), codes.flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    assert torch.equal(model.eval().decode(inputs, "latent", greedy), codes)
    still = [name for name, p in model.named_parameters() if p.grad is None]
    assert {name.split(".")[0] for name in still} == {"heads", "vqgan"}
    assert {name for name in still if not name.startswith("vqgan.")} == {
        "heads.text.weight", "heads.vision.weight",
    }  # fmt: skip


def test_heads_come_and_go_with_their_tables():
    model = toy_lwm()
    model.drop_latent_head()
    names = set(model.state_dict())
    assert "tables.latent.weight" not in names
    assert "heads.latent.weight" not in names
    with pytest.raises(CheckpointError, match="no latent head"):
        model.latent_logits(toy_inputs(model), torch.zeros(3, 4, dtype=torch.int64))
    assert len(model.action_parameters()) == 2
    model.drop_action_head()
    with pytest.raises(CheckpointError, match="no action head"):
        model.decode(toy_inputs(model), "action", greedy)
    small = LwmVla.start(replace(LWM_DEBUG, action_vocab=8), TASKS)
    with pytest.raises(ContractError, match="action_vocab is 8"):
        small.give_action_head(toy_bins())


def test_what_the_model_cannot_take_is_refused(lwm):
    image = torch.rand(1, 3, 16, 16)
    with pytest.raises(ContractError, match="wrist"):
        lwm.prepare(image, ["go"], {"wrist": image})
    with pytest.raises(DataError, match="shorten"):
        lwm.prepare(image, ["very " * 100])
    with pytest.raises(CheckpointError, match="do not belong together"):
        LwmVla(replace(LWM_DEBUG, vocab=300), lwm.text)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden": 30}, "hidden is 30"),
        ({"image_px": 250}, "image_px is 250"),
        ({"vision_vocab": 8193}, "vision_vocab is 8193"),
        ({"layers": 0}, "layers is 0"),
        ({"dtype": "float8"}, "dtype is 'float8'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, named):
    with pytest.raises(ContractError, match=named):
        LwmConfig(**change)
    with pytest.raises(ContractError, match="channels"):
        VqganConfig(channels=(100,))


def test_the_training_loops_autocast_is_obeyed_over_float32_weights():
    model, codes = toy_lwm(dtype="float32"), torch.zeros(3, 4, dtype=torch.int64)
    inputs = toy_inputs(model)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            around = model.latent_logits(inputs, codes)
        inside = toy_lwm(dtype="bfloat16").latent_logits(inputs, codes)
    torch.testing.assert_close(around, inside)


def test_a_model_rebuilds_itself_from_its_checkpoint(tmp_path):
    """Tokenizers and both heads travel; the VQGAN stays float32 beside bfloat16 weights."""
    model = toy_lwm()
    inputs = toy_inputs(model)
    facts = {"bins": model.need_bins().to_dict()}
    save_vla(tmp_path / "checkpoint", POLICY, model, **facts)
    loaded = load_vla(tmp_path / "checkpoint", POLICY).model
    assert loaded.config == model.config
    assert isinstance(loaded.config, LwmConfig)
    again = toy_inputs(loaded)
    for name, tensor in inputs.items():
        assert torch.equal(again[name], tensor)
    for head in ("latent", "action"):
        assert torch.equal(loaded.decode(again, head, greedy), model.decode(inputs, head, greedy))
    narrow = load_vla(tmp_path / "checkpoint", POLICY, dtype=torch.bfloat16).model
    assert narrow.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert torch.equal(toy_inputs(narrow)["vision"], inputs["vision"])
