# SPDX-License-Identifier: Apache-2.0
"""The same frame and question through the family's own processor and forward, which share no code with ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, Idefics3Processor, PaliGemmaProcessor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

from lapa_core.vla.hf.config import HfConfig
from lapa_core.vla.hf.families import QUESTION
from lapa_core.vla.hf.model import HfVla
from tests.vla.tiny_backbones import FAMILIES, IMAGE_PX, save, tokenizer

INSTRUCTION = "push the red block left"


def idefics_inputs(family, frames):
    edge = {"longest_edge": IMAGE_PX}
    images = Idefics3ImageProcessorPil(
        size=edge, max_image_size=edge, do_image_splitting=False,
        image_mean=[0.5] * 3, image_std=[0.4, 0.5, 0.6],
    )  # fmt: skip
    words = tokenizer(family)
    parts = [{"type": "image"}] * len(frames)
    parts = [*parts, {"type": "text", "text": QUESTION.format(instruction=INSTRUCTION)}]
    text = words.apply_chat_template(
        [{"role": "user", "content": parts}],
        chat_template=DEFAULT_CHAT_TEMPLATE,
        tokenize=False,
        add_generation_prompt=True,
    )
    processor = Idefics3Processor(images, words, image_seq_len=16)
    return processor(text=text, images=frames, return_tensors="pt", add_special_tokens=False)


def qwen_inputs(family, frames):
    images = Qwen2VLImageProcessorPil(patch_size=4, min_pixels=64, max_pixels=4096)
    pixels = images(images=frames, return_tensors="pt")
    words = tokenizer(family)
    frame = f"<|vision_start|>{'<|image_pad|>' * 16}<|vision_end|>"
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"{frame * len(frames)}{QUESTION.format(instruction=INSTRUCTION)}<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = words(text, return_tensors="pt", add_special_tokens=False)
    kinds = (ids["input_ids"] == words.convert_tokens_to_ids("<|image_pad|>")).int()
    return {**ids, **pixels, "mm_token_type_ids": kinds}


def paligemma_inputs(family, frames):
    images = SiglipImageProcessorPil(size={"height": IMAGE_PX, "width": IMAGE_PX})
    images.image_seq_length = 16
    processor = PaliGemmaProcessor(images, tokenizer(family))
    text = "<image>" * len(frames) + QUESTION.format(instruction=INSTRUCTION)
    found = processor(text=text, images=[frames], return_tensors="pt")
    return {key: value for key, value in found.items() if key != "labels"}


INPUTS = {
    "smolvlm": idefics_inputs,
    "idefics3": idefics_inputs,
    "qwen2_5_vl": qwen_inputs,
    "paligemma": paligemma_inputs,
    "paligemma2": paligemma_inputs,
}


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # PaliGemmaProcessor's labels
@pytest.mark.parametrize("cameras", [("front",), ("front", "wrist")])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_prompt_gives_the_hidden_state_that_the_family_computes_itself(
    family, cameras, tmp_path
):
    folder = save(family, tmp_path)
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, (IMAGE_PX, IMAGE_PX, 3), np.uint8) for _ in cameras]
    network = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    expected = network.model(**INPUTS[family](family, frames)).last_hidden_state[:, -1]

    config = HfConfig(model=str(folder), image_px=IMAGE_PX, max_text=200, cameras=cameras)
    model = HfVla.start(config, []).eval()
    images = [torch.from_numpy(frame).permute(2, 0, 1)[None] / 255 for frame in frames]
    inputs = model.prepare(
        images[0], [INSTRUCTION], dict(zip(cameras[1:], images[1:], strict=True))
    )
    torch.testing.assert_close(model.summary(inputs), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_of_the_answer_are_the_head_over_the_familys_own_forward(family, tmp_path):
    """Positions, masks and cache of the answer, against the family's forward over embeddings and no padding."""
    model = HfVla.start(
        HfConfig(model=str(save(family, tmp_path)), image_px=IMAGE_PX, max_text=200), []
    ).eval()
    model.give_latent_head(4, 8)
    codes = torch.tensor([[3, 0, 7, 1]])
    inputs = model.prepare(torch.rand(1, 3, IMAGE_PX, IMAGE_PX), [INSTRUCTION])
    there = inputs["visible"][0]
    prefix = model.prefix_embeddings(inputs, "latent")[:, there]
    answer = torch.stack([model.embed("latent", codes[:, k], k) for k in range(3)], dim=1)
    length = prefix.shape[1]
    more = {}
    if family.startswith("paligemma"):
        more["token_type_ids"] = torch.tensor([[0] * length + [1] * 3])
    if family == "qwen2_5_vl":
        start = model.positions(inputs, "latent")[..., there]
        behind = start[:, :, -1:] + torch.arange(1, 4)
        more["position_ids"] = torch.cat([start, behind], dim=-1)
    hidden = model.network(
        inputs_embeds=torch.cat([prefix, answer], dim=1), **more
    ).last_hidden_state
    expected = hidden[:, length - 1 :] @ model.latent_head.linear.weight.T
    torch.testing.assert_close(model.latent_logits(inputs, codes), expected, atol=1e-4, rtol=1e-4)
