# SPDX-License-Identifier: Apache-2.0
"""Every family of backbones at toy width with random weights, saved as `transformers` saves the real ones.

`--model.model toy-smolvlm` (or another family) means one of these: what a debug preset and a test can train in seconds.
"""

from __future__ import annotations

import shutil
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModelForImageTextToText,
    Idefics3Config,
    PaliGemmaConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    SmolVLMConfig,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from lapa_core.data.cache import default_cache_dir
from lapa_core.errors import CheckpointError

PREFIX = "toy-"
"""Of a model id that means a toy."""
IMAGE_PX = 32
LEADER_S = 60.0
"""Longest time that the leading process may take to make a toy [s]."""
FAMILIES = ("smolvlm", "idefics3", "qwen2_5_vl", "paligemma", "paligemma2")

_IDEFICS_MARKS = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
_MARKS = {
    "smolvlm": _IDEFICS_MARKS,
    "idefics3": _IDEFICS_MARKS,
    "qwen2_5_vl": ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_end|>", "<|video_pad|>"],
    "paligemma": ["<image>"],
    "paligemma2": ["<image>"],
}  # fmt: skip
_TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 512, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_VISION = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": IMAGE_PX, "patch_size": 8,
}  # fmt: skip


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with the marks of a family."""
    marks = ["<pad>", "<|im_start|>", "<eos>", *_MARKS[family]]
    pieces = {text: i for i, text in enumerate([*marks, *sorted(ByteLevel.alphabet())])}
    fast = Tokenizer(BPE(vocab=pieces, merges=[]))
    fast.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="<pad>",
        bos_token="<|im_start|>",
        eos_token="<eos>",
        additional_special_tokens=marks[3:],
    )


def save(family: str, folder: Path) -> Path:
    """Write a random model, its tokenizer and its image processor into `folder`."""
    torch.manual_seed(0)
    words = tokenizer(family)
    config, processor = _configs(family, words)
    network = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in network.parameters():
            # At the initial width everything but the residual stream is nearly nothing, and tests would see nothing.
            parameter.add_(torch.randn_like(parameter) * 0.15)
    network.save_pretrained(folder)
    words.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _configs(family: str, words: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    def image_id(text: str) -> int:
        return int(words.vocab[text])

    if family in ("smolvlm", "idefics3"):
        kind = SmolVLMConfig if family == "smolvlm" else Idefics3Config
        text = {**_TEXT, "model_type": "llama"}
        config: Any = kind(
            vision_config={**_VISION, "patch_size": 4},
            text_config=text,
            scale_factor=2,
            image_token_id=image_id("<image>"),
        )
        return config, Idefics3ImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.4, 0.5, 0.6])
    if family == "qwen2_5_vl":
        vision = {
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
            "window_size": 16, "out_hidden_size": 32, "fullatt_block_indexes": [1],
        }  # fmt: skip
        rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}
        config = Qwen2_5_VLConfig(
            vision_config=vision,
            text_config={**_TEXT, "rope_parameters": rope},
            image_token_id=image_id("<|image_pad|>"),
            video_token_id=image_id("<|video_pad|>"),
            vision_start_token_id=image_id("<|vision_start|>"),
        )
        return config, Qwen2VLImageProcessorPil(patch_size=4, min_pixels=64, max_pixels=4096)
    text = {**_TEXT, "head_dim": 8, "model_type": "gemma" if family == "paligemma" else "gemma2"}
    config = PaliGemmaConfig(
        vision_config={**_VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=text,
        image_token_index=image_id("<image>"),
        projection_dim=32,
        hidden_size=32,
        vocab_size=300,
    )
    return config, SiglipImageProcessorPil(size={"height": IMAGE_PX, "width": IMAGE_PX})


def toy_backbone(model: str) -> Path:
    """Return the folder of a toy, which is made when it is not there.

    Raises:
        CheckpointError: no such family.
    """
    family = model.removeprefix(PREFIX)
    if family not in FAMILIES:
        raise CheckpointError(
            f"{model!r} is no toy backbone; known are {', '.join(PREFIX + known for known in FAMILIES)}"
        )
    made_by = zlib.crc32(Path(__file__).read_bytes())
    folder = default_cache_dir() / "backbones" / f"{family}-{made_by:08x}"
    if torch.distributed.is_initialized() and torch.distributed.get_rank():
        _wait_for(folder)  # `transformers` writes no weights on any rank but the first
    elif not folder.exists():
        fresh = folder.with_name(f".{family}.{uuid.uuid4().hex[:8]}")
        # Whoever asks may be counting on the meta device.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            save(family, fresh)
        try:
            fresh.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(fresh)
    return folder


def _wait_for(folder: Path) -> None:
    """Return when the leading process has made a folder.

    Raises:
        CheckpointError: it has not within `LEADER_S`.
    """
    end_s = time.monotonic() + LEADER_S
    while not folder.exists():
        if time.monotonic() > end_s:
            raise CheckpointError(
                f"the leading process has not made {folder} within {LEADER_S:g} s; its output says why"
            )
        time.sleep(0.1)
