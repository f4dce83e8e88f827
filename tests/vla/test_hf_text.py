# SPDX-License-Identifier: Apache-2.0
"""Configuration, prompts, images and positions of the backbones of `transformers`."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lapa_core.errors import CheckpointError, ContractError, DataError
from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.hf.families import family_of
from lapa_core.vla.hf.images import Normalisation, to_patches
from lapa_core.vla.hf.text import STATE_ID, HfText
from tests.vla.tiny_backbones import IMAGE_PX, save


@pytest.fixture(scope="module", params=["smolvlm", "qwen2_5_vl", "paligemma"])
def folder(request, tmp_path_factory):
    return save(request.param, tmp_path_factory.mktemp(request.param))


def config(folder, **fields):
    return HfConfig(model=str(folder), image_px=IMAGE_PX, **{"max_text": 200, **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": ""}, "model is empty"),
        ({"image_px": 0}, "image_px is 0"),
        ({"cameras": ()}, "at least one"),
        ({"cameras": ("a", "a")}, "none twice"),
        ({"cameras": ("front", "state")}, "none of them 'state'"),
        ({"decoding": "both"}, "'sequential' and 'parallel'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fields, said):
    with pytest.raises(ContractError, match=said):
        HfConfig(**{"model": "a/b", **fields})


def test_a_model_that_is_nowhere_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match="hf download"):
        HfText.fetch(str(tmp_path / "nowhere"))


def test_a_toy_is_made_once_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("LAPA_CACHE", str(tmp_path))
    before = torch.get_rng_state()
    one = HfText.fetch("toy-smolvlm")
    assert torch.equal(torch.get_rng_state(), before)
    (made,) = (tmp_path / "backbones").iterdir()
    stamp = (made / "config.json").stat().st_mtime_ns
    assert HfText.fetch("toy-smolvlm").images == one.images
    assert (made / "config.json").stat().st_mtime_ns == stamp
    with pytest.raises(CheckpointError, match=r"'toy-gpt' is no toy.*toy-qwen2_5_vl"):
        HfText.fetch("toy-gpt")


def test_a_family_that_is_not_known_is_refused_with_those_that_are(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(CheckpointError, match=r"llava.*qwen2_5_vl"):
        HfText.fetch(str(tmp_path))


def test_text_travels_in_a_checkpoint(folder, tmp_path):
    text = HfText.fetch(str(folder))
    text.save(tmp_path)
    again = HfText.load(tmp_path, json.loads(json.dumps(text.to_dict())))
    asked = config("gone")
    assert again.encode("push", asked) == text.encode("push", config(folder))
    assert again.images == text.images
    assert again.backbone.to_dict().keys() == text.backbone.to_dict().keys()


def test_the_state_has_one_place_behind_the_last_image(folder):
    text = HfText.fetch(str(folder))
    plain = text.encode("push", config(folder, cameras=("a", "b")))
    ids = text.encode("push", config(folder, cameras=("a", "b"), state_dim=3))
    place = ids.index(STATE_ID)
    assert ids[:place] + ids[place + 1 :] == plain
    assert ids[place - 2] == text.family.image_id
    assert text.family.image_id not in ids[place:]


def test_instructions_that_would_break_the_prompt_are_refused(folder):
    text = HfText.fetch(str(folder))
    with pytest.raises(DataError, match="a mark of the prompt"):
        text.encode(f"push {text.family.image_token(None)}", config(folder))
    with pytest.raises(DataError, match="max_text is 100"):
        text.encode("push " * 30, config(folder, max_text=100))


def test_frames_that_a_tower_does_not_take_are_refused_with_those_that_it_does(folder):
    family = HfText.fetch(str(folder)).family
    allowed = {"smolvlm": "multiple of 8", "qwen2_5_vl": "multiples of 8", "paligemma": "32 only"}
    with pytest.raises(ContractError, match=allowed[family.backbone.model_type]):
        family.side_tokens(27)


@pytest.mark.parametrize(
    ("patch", "size", "scale", "px", "side"),
    [(16, 512, 4, 512, 8), (16, 512, 4, 256, 4), (14, 384, 3, 384, 9), (14, 364, 2, 364, 13)],
)
def test_token_counts_of_the_published_idefics_towers(patch, size, scale, px, side):
    vision = SimpleNamespace(patch_size=patch, image_size=size)
    backbone = SimpleNamespace(
        model_type="smolvlm", vision_config=vision, image_token_id=1, scale_factor=scale
    )
    assert family_of(backbone).side_tokens(px) == side


def test_patches_are_those_of_the_processor():
    frame = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    processor = Qwen2VLImageProcessorPil(patch_size=4, min_pixels=64, max_pixels=4096)
    expected = torch.as_tensor(processor(images=[frame], return_tensors="pt")["pixel_values"])
    image = torch.from_numpy(frame).permute(2, 0, 1)[None] / 255
    mine = to_patches(Normalisation.of(processor.to_dict())(image), patch=4, merge=2, frames=2)
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)


def test_statistics_that_are_not_there_are_missed():
    with pytest.raises(CheckpointError, match="image_mean"):
        Normalisation.of({"image_std": [1, 1, 1]})
    with pytest.raises(CheckpointError, match="std above 0"):
        Normalisation.of({"image_mean": [0, 0, 0], "image_std": [1, 0, 1]})
    image = torch.rand(1, 3, 2, 2)
    assert torch.equal(Normalisation.of({"do_normalize": False})(image), image)


def test_qwens_positions_are_its_own(tmp_path):
    folder = save("qwen2_5_vl", tmp_path)
    text = HfText.fetch(str(folder))
    asked = config(folder, cameras=("a", "b"))
    rows = [text.encode(words, asked) for words in ("push", "push the red block")]
    length = max(map(len, rows))
    ids = torch.tensor([(0,) * (length - len(row)) + row for row in rows])
    visible = torch.arange(length) >= length - torch.tensor([[len(row)] for row in rows])
    network = AutoModelForImageTextToText.from_pretrained(folder).model
    expected, _ = network.get_rope_index(
        ids,
        mm_token_type_ids=(ids == text.family.image_id).int(),
        image_grid_thw=torch.tensor([[1, 8, 8]] * 4),
        attention_mask=visible.long(),
    )
    mine = text.family.positions(ids, visible, 4).movedim(1, 0)
    assert torch.equal(mine[:, visible], expected[:, visible])
