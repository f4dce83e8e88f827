# SPDX-License-Identifier: Apache-2.0
"""Backbones of `transformers` as policies: heads, masks, padding, freezing, checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from lapa_core.actions.bins import ActionBins
from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.train.recompute import recompute
from lapa_core.vla.base import make_model, model_class
from lapa_core.vla.decode.choose import greedy
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.hf.model import HfVla
from lapa_core.vla.hf.text import HfText
from tests.vla.tiny_backbones import IMAGE_PX, save

WORDS = ["push the red block left", "lift"]


@pytest.fixture(scope="module", params=["smolvlm", "qwen2_5_vl", "paligemma"])
def folder(request, tmp_path_factory):
    return save(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def bins():
    rng = np.random.default_rng(0)
    actions = rng.normal(0, 0.02, (200, 7))
    actions[:, 5] = 0.0
    actions[:, 6] = rng.integers(0, 2, 200)
    return ActionBins.fit(actions, 12)


def start(folder, bins, **fields):
    torch.manual_seed(0)
    config = HfConfig(model=str(folder), image_px=IMAGE_PX, max_text=200, **fields)
    model = HfVla.start(config, []).eval()
    model.give_latent_head(4, 8)
    model.give_action_head(bins)
    for head in (model.latent_head, model.action_head):
        head.embedding.weight.data.normal_()
        head.linear.weight.data.normal_()
    return model


@pytest.fixture(scope="module")
def model(folder, bins):
    """One camera, token after token; nothing changes it."""
    return start(folder, bins)


@pytest.fixture(scope="module")
def parallel(folder, bins):
    return start(folder, bins, decoding="parallel")


def images(count=2, seed=0):
    return torch.rand(count, 3, IMAGE_PX, IMAGE_PX, generator=torch.Generator().manual_seed(seed))


def bins_of(bins, count=2):
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.integers(0, bins.counts, (count, 7)))


def test_logits_have_their_shapes_and_bins_that_are_not_there_are_masked(model, bins):
    inputs = model.prepare(images(), WORDS)
    latent = model.latent_logits(inputs, torch.zeros(2, 4, dtype=torch.int64))
    action = model.action_logits(inputs, bins_of(bins))
    assert latent.shape == (2, 4, 8)
    assert latent.isfinite().all()
    assert action.shape == (2, 7, bins.counts.max())
    assert torch.equal(action.isfinite(), torch.from_numpy(bins.mask).expand(2, -1, -1))


@torch.no_grad()
def test_a_token_sees_those_before_it_and_no_other(model):
    inputs = model.prepare(images(), WORDS)
    codes = torch.zeros(2, 4, dtype=torch.int64)
    before = model.latent_logits(inputs, codes)
    codes[:, 1] = 5
    after = model.latent_logits(inputs, codes)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert ((after - before)[:, 2:].abs().amax(dim=(1, 2)) > 1e-2).all()


@torch.no_grad()
def test_decoding_chooses_what_teacher_forcing_finds_likeliest(model, parallel):
    for one in (model, parallel):
        inputs = one.prepare(images(4), [*WORDS, *WORDS])
        for head, logits in (("latent", one.latent_logits), ("action", one.action_logits)):
            ids = one.decode(inputs, head, greedy)
            assert torch.equal(logits(inputs, ids).argmax(dim=-1), ids)
            assert len(ids.unique()) > 1


@torch.no_grad()
def test_a_parallel_head_needs_no_ids(parallel):
    inputs = parallel.prepare(images(), WORDS)
    one, other = (parallel.latent_logits(inputs, torch.full((2, 4), code)) for code in (0, 7))
    assert torch.equal(one, other)
    assert (one[:, 0] - one[:, 1]).abs().max() > 1e-2


@torch.no_grad()
def test_a_batch_is_each_of_its_samples_alone(model):
    codes = torch.tensor([[1, 2, 3, 4], [7, 0, 5, 5]])
    together = model.prepare(images(), WORDS)
    assert (~together["visible"]).sum(dim=1).unique().numel() == 2
    logits = model.latent_logits(together, codes)
    for i in range(2):
        one = model.prepare(images()[i : i + 1], WORDS[i : i + 1])
        alone = model.latent_logits(one, codes[i : i + 1])
        torch.testing.assert_close(logits[i : i + 1], alone, atol=1e-4, rtol=1e-4)


def test_a_camera_that_the_model_has_not_is_named(model):
    with pytest.raises(DataError, match=r"no use of \['wrsit'\]; it takes \[\]"):
        model.prepare(images(), WORDS, {"wrsit": images()})


@torch.no_grad()
def test_frame_words_second_camera_and_state_all_count(folder, bins):
    model = start(folder, bins, cameras=("front", "wrist"), state_dim=3)
    extra = {"wrist": images(seed=1), "state": torch.ones(2, 3)}

    def summary(seed=0, words=WORDS, **changed):
        return model.summary(model.prepare(images(seed=seed), words, {**extra, **changed}))

    base = summary()
    others = [
        summary(seed=2),
        summary(words=["push the red block back", "drop"]),
        summary(wrist=images(seed=2)),
        summary(state=-torch.ones(2, 3)),
        model.summary(model.prepare(images(seed=1), WORDS, {**extra, "wrist": images()})),
    ]
    for other in others:
        assert ((other - base).abs().amax(dim=1) > 1e-3).all()


def test_inputs_that_are_missing_or_of_another_shape_are_refused(folder, bins):
    model = start(folder, bins, cameras=("front", "wrist"), state_dim=3)
    extra = {"wrist": images(), "state": torch.ones(2, 3)}
    with pytest.raises(DataError, match=r"'wrist', which is missing"):
        model.prepare(images(), WORDS, {"state": torch.ones(2, 3)})
    with pytest.raises(DataError, match=r"state has shape \(2, 4\)"):
        model.prepare(images(), WORDS, {**extra, "state": torch.ones(2, 4)})
    with pytest.raises(DataError, match="front has shape"):
        model.prepare(images()[..., 1:], WORDS, extra)
    with pytest.raises(ContractError, match="image_px is 27"):
        HfVla(HfConfig(model=str(folder), image_px=27), model.text)


@pytest.mark.parametrize("decoding", ["sequential", "parallel"])
def test_a_step_trains_all_but_the_vision_tower(folder, bins, decoding):
    model = start(folder, bins, decoding=decoding).train()
    model.drop_latent_head()
    frozen = {id(parameter) for parameter in model.vision_parameters()}
    before = {name: part.detach().clone() for name, part in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    labels = bins_of(bins)
    logits = model.action_logits(model.prepare(images(), WORDS), labels)
    F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        still = torch.equal(parameter, before[name])
        assert still == (id(parameter) in frozen), name


def test_a_vision_tower_that_is_not_frozen_learns(folder, bins):
    model = start(folder, bins, freeze_vision=False).train()
    labels = torch.zeros(2, 4, dtype=torch.int64)
    logits = model.latent_logits(model.prepare(images(), WORDS), labels)
    F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    learning = [p.grad is not None and p.grad.abs().sum() > 0 for p in model.vision_parameters()]
    assert np.mean(learning) > 0.8


def test_a_sequence_that_is_too_long_is_refused_before_it_is_trained(folder):
    many = tuple(f"camera{i}" for i in range(40))
    with torch.device("meta"):
        model = HfVla(HfConfig(model=str(folder), image_px=IMAGE_PX, cameras=many), None)
    with pytest.raises(ContractError, match=r"40 frames of 16 tokens.*sees 512"):
        model.give_latent_head(4, 8)


def test_a_folder_that_lacks_a_weight_is_refused(tmp_path):
    folder = save("smolvlm", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if "layers.1" in name)
    save_file(
        {name: part for name, part in tensors.items() if name != lost},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CheckpointError, match="lacks 1 weights"):
        HfVla.start(HfConfig(model=str(folder), image_px=IMAGE_PX), [])


def test_heads_come_and_go(folder, bins):
    model = start(folder, bins)
    inputs = model.prepare(images(), WORDS)
    assert {id(p) for p in model.action_parameters()} <= {id(p) for p in model.parameters()}
    model.drop_latent_head()
    model.drop_action_head()
    assert not any("head" in name for name in model.state_dict())
    assert model.action_parameters() == []
    with pytest.raises(CheckpointError, match="no latent head"):
        model.latent_logits(inputs, torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(CheckpointError, match="no action head"):
        model.decode(inputs, "action", greedy)


@torch.no_grad()
def test_what_is_read_once_serves_every_head(model):
    inputs = model.prepare(images(), WORDS)
    read = model.read(inputs)
    assert model.read(read) is read
    codes = torch.zeros(2, 4, dtype=torch.int64)
    torch.testing.assert_close(model.latent_logits(read, codes), model.latent_logits(inputs, codes))


def test_a_model_is_rebuilt_from_its_text_side_and_weights_without_the_folder(
    folder, bins, tmp_path
):
    model = start(folder, bins, cameras=("front", "wrist"), state_dim=3)
    model.text.save(tmp_path)
    text = HfText.load(tmp_path, model.text.to_dict())
    config = HfConfig(
        model="a/folder/that/is/gone", image_px=IMAGE_PX, max_text=200,
        cameras=("front", "wrist"), state_dim=3,
    )  # fmt: skip
    again = make_model(config, text, latent=(4, 8), bins=bins).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    extra = {"wrist": images(seed=1), "state": torch.ones(2, 3)}
    with torch.no_grad():
        mine, its = (
            m.action_logits(m.prepare(images(), WORDS, extra), bins_of(bins))
            for m in (model, again)
        )
    assert torch.equal(mine, its)
    assert model_class("hf") is HfVla is type(again)


def test_a_model_is_counted_without_weights(folder, bins):
    with torch.device("meta"):
        counted = HfVla(HfConfig(model=str(folder), image_px=IMAGE_PX), None)
        counted.give_action_head(bins)
    model = start(folder, bins)
    model.drop_latent_head()
    assert sum(p.numel() for p in counted.parameters()) == sum(
        p.numel() for p in model.parameters()
    )
    assert all(p.is_meta for p in counted.parameters())


@torch.no_grad()
def test_bfloat16_keeps_the_wave_lengths_of_positions(folder, bins):
    model = start(folder, bins)
    exact = {name: part.clone() for name, part in model.network.named_buffers()}
    model.to(torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    for name, part in model.network.named_buffers():
        assert part.dtype == exact[name].dtype
        assert torch.equal(part, exact[name])
    ids = model.decode(model.prepare(images(), WORDS), "action", greedy)
    assert (ids.numpy() < bins.counts).all()


@pytest.mark.parametrize("freeze", [True, False])
def test_blocks_that_are_computed_twice_give_the_same_gradients(folder, bins, freeze):
    found = []
    for again in (False, True):
        model = start(folder, bins, freeze_vision=freeze).train()
        assert len(model.blocks()) == (2 if freeze else 4)
        if again:
            recompute(model.blocks())
        model.action_logits(model.prepare(images(), WORDS), bins_of(bins))[:, 6, 0].sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_bfloat16_autocast_computes_nearly_the_same(model):
    inputs = model.prepare(images(), WORDS)
    codes = torch.zeros(2, 4, dtype=torch.int64)
    exact = model.latent_logits(inputs, codes).detach()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.latent_logits(inputs, codes)
    rounded.square().mean().backward()
    assert ((rounded - exact).norm() / exact.norm()) < 0.05
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
    model.zero_grad()
